package main

import (
	"fmt"
	"net/http"
	"net/netip"
)

// A balancer gives each Service of type LoadBalancer an address. That is all: kube-proxy carries the traffic.
//
// An address that the Service asks for is given if it is in the range and free. Otherwise the Service stays without
// one, as with a cloud's load balancer.
type balancer struct {
	api    *api
	owners map[netip.Addr]string
}

type balancedService struct {
	Metadata metadata
	Spec     struct {
		Type              string
		LoadBalancerIP    string
		LoadBalancerClass *string
	}
	Status struct {
		LoadBalancer struct {
			Ingress []ingressAddress `json:"ingress"`
		} `json:"loadBalancer"`
	}
}

type ingressAddress struct {
	IP     string `json:"ip"`
	IPMode string `json:"ipMode"`
}

func newBalancer(api *api) *balancer {
	return &balancer{api: api, owners: map[netip.Addr]string{}}
}

func (b *balancer) work() {
	watch(b.api, "/api/v1/services", b.handle)
}

func (b *balancer) handle(event change[balancedService]) error {
	service := event.Object
	owner := service.Metadata.key()
	isOurs := service.Spec.Type == "LoadBalancer" && service.Spec.LoadBalancerClass == nil
	if event.Type == "DELETED" || !isOurs {
		b.release(owner)
		return nil
	}
	for _, given := range service.Status.LoadBalancer.Ingress {
		if address, err := netip.ParseAddr(given.IP); err == nil {
			b.owners[address] = owner
		}
		return nil
	}
	address, found := b.choose(service.Spec.LoadBalancerIP)
	if !found {
		fmt.Printf("service %s: no address (it asks for %q)\n", owner, service.Spec.LoadBalancerIP)
		return nil
	}
	b.release(owner)
	b.owners[address] = owner
	return b.publish(service.Metadata, address)
}

func (b *balancer) choose(wanted string) (netip.Addr, bool) {
	if wanted != "" {
		address, err := netip.ParseAddr(wanted)
		return address, err == nil && balancerRange.Contains(address) && b.owners[address] == ""
	}
	for address := balancerRange.Addr().Next(); balancerRange.Contains(address); address = address.Next() {
		if b.owners[address] == "" {
			return address, true
		}
	}
	return netip.Addr{}, false
}

func (b *balancer) release(owner string) {
	for address, holder := range b.owners {
		if holder == owner {
			delete(b.owners, address)
		}
	}
}

func (b *balancer) publish(service metadata, address netip.Addr) error {
	var patch balancedService
	patch.Status.LoadBalancer.Ingress = []ingressAddress{{IP: address.String(), IPMode: "VIP"}}
	body := map[string]any{"status": map[string]any{"loadBalancer": patch.Status.LoadBalancer}}
	path := fmt.Sprintf("/api/v1/namespaces/%s/services/%s/status", service.Namespace, service.Name)
	if err := b.api.send(http.MethodPatch, path, body, nil); err != nil {
		// Deleted in between, or refused: the next event of the Service decides.
		fmt.Printf("service %s: %v\n", service.key(), err)
	}
	return nil
}
