package main

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"time"
)

// startLimit is how long one program may take on a busy machine. Typical is 2 s.
const startLimit = 120 * time.Second

// A service is a program of the cluster that runs until its end.
type service struct {
	name    string
	command []string
	healthy func(context.Context) error
}

func (r run) kube(program string, args ...string) []string {
	return append([]string{r.program("kube"), program}, args...)
}

func (r run) containerd() service {
	return service{
		name:    "containerd",
		command: []string{r.program("containerd"), "--config", r.path("containerd.toml")},
		healthy: func(ctx context.Context) error {
			connection, err := new(net.Dialer).DialContext(ctx, "unix", r.containerdSocket())
			if err == nil {
				connection.Close()
			}
			return err
		},
	}
}

// etcd does not wait for the disk: nobody needs the state of this cluster after a loss of power.
func (r run) etcd() service {
	return service{
		name: "etcd",
		command: r.kube("etcd", "--data-dir", r.path("etcd"), "--unsafe-no-fsync", "--log-level", "warn",
			"--listen-client-urls", "http://127.0.0.1:2379", "--advertise-client-urls", "http://127.0.0.1:2379",
			"--listen-peer-urls", "http://127.0.0.1:2380", "--initial-advertise-peer-urls", "http://127.0.0.1:2380",
			"--initial-cluster", "default=http://127.0.0.1:2380"),
		healthy: ok("http://127.0.0.1:2379/health"),
	}
}

func (r run) apiServer() service {
	pki := func(name string) string { return r.path("pki", name) }
	return service{
		name: "kube-apiserver",
		command: r.kube("kube-apiserver", "--etcd-servers", "http://127.0.0.1:2379",
			"--advertise-address", nodeAddress, "--secure-port", "6443",
			"--tls-cert-file", pki("api.crt"), "--tls-private-key-file", pki("api.key"), "--client-ca-file", pki("ca.crt"),
			// API servers behind this one (metrics) are asked in the name of the caller.
			"--requestheader-client-ca-file", pki("ca.crt"), "--requestheader-allowed-names", "front-proxy",
			"--requestheader-username-headers", "X-Remote-User", "--requestheader-group-headers", "X-Remote-Group",
			"--requestheader-extra-headers-prefix", "X-Remote-Extra-",
			"--proxy-client-cert-file", pki("front-proxy.crt"), "--proxy-client-key-file", pki("front-proxy.key"),
			"--kubelet-client-certificate", pki("admin.crt"), "--kubelet-client-key", pki("admin.key"),
			"--kubelet-preferred-address-types", "InternalIP",
			"--service-account-issuer", "https://kubernetes.default",
			"--service-account-key-file", pki("sa.pub"), "--service-account-signing-key-file", pki("sa.key"),
			"--authorization-mode", "Node,RBAC", "--enable-admission-plugins", "NodeRestriction",
			"--service-cluster-ip-range", serviceRange, "--allow-privileged"),
		// The text of /readyz has lines with `ok` while its status is still 500: only the status counts.
		healthy: ok("https://" + apiAddress + "/readyz"),
	}
}

// followers need the API server with its bootstrap roles: a controller manager that starts earlier ends at once.
func (r run) followers() []service {
	return []service{
		{
			name: "kube-controller-manager",
			command: r.kube("kube-controller-manager", "--kubeconfig", r.kubeconfig("controller"),
				"--authentication-kubeconfig", r.kubeconfig("controller"),
				"--authorization-kubeconfig", r.kubeconfig("controller"),
				"--service-account-private-key-file", r.path("pki", "sa.key"), "--root-ca-file", r.path("pki", "ca.crt"),
				"--client-ca-file", r.path("pki", "ca.crt"), "--use-service-account-credentials",
				// With the default of 20 requests a second the controllers need 5 s to start.
				"--kube-api-qps", "200", "--kube-api-burst", "400",
				"--leader-elect=false", "--bind-address", "127.0.0.1"),
			healthy: ok("https://127.0.0.1:10257/healthz"),
		},
		{
			name: "kube-scheduler",
			command: r.kube("kube-scheduler", "--kubeconfig", r.kubeconfig("scheduler"),
				"--authentication-kubeconfig", r.kubeconfig("scheduler"),
				"--authorization-kubeconfig", r.kubeconfig("scheduler"),
				"--leader-elect=false", "--bind-address", "127.0.0.1"),
			healthy: ok("https://127.0.0.1:10259/healthz"),
		},
		{
			name: "kubelet",
			command: r.kube("kubelet", "--config", r.path("kubelet.yaml"), "--kubeconfig", r.kubeconfig("node"),
				"--hostname-override", nodeName, "--node-ip", nodeAddress, "--root-dir", r.path("kubelet")),
			healthy: ok("http://127.0.0.1:10248/healthz"),
		},
		{
			name:    "kube-proxy",
			command: r.kube("kube-proxy", "--config", r.path("proxy.yaml")),
			healthy: ok("http://127.0.0.1:10256/healthz"),
		},
	}
}

// probing asks programs of this machine for their health: their certificates prove nothing more.
var probing = http.Client{
	Timeout:   2 * time.Second,
	Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}},
}

func ok(url string) func(context.Context) error {
	return func(ctx context.Context) error {
		request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
		if err != nil {
			return err
		}
		response, err := probing.Do(request)
		if err != nil {
			return err
		}
		defer response.Body.Close()
		io.Copy(io.Discard, response.Body)
		if response.StatusCode != http.StatusOK {
			return fmt.Errorf("%s: %s", url, response.Status)
		}
		return nil
	}
}
