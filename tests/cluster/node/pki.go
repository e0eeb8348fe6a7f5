package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"time"
)

// A certificate lives as long as a test cluster at most does.
const certificateLife = 7 * 24 * time.Hour

// users are the certificates, one for each program, with the names that Kubernetes' own roles are bound to.
var users = map[string]pkix.Name{
	"api":         {CommonName: "kube-apiserver"},
	"front-proxy": {CommonName: "front-proxy"},
	"admin":       {CommonName: "admin", Organization: []string{"system:masters"}},
	"controller":  {CommonName: "system:kube-controller-manager"},
	"scheduler":   {CommonName: "system:kube-scheduler"},
	"node":        {CommonName: "system:node:" + nodeName, Organization: []string{"system:nodes"}},
	"proxy":       {CommonName: "system:kube-proxy"},
}

type authority struct {
	certificate *x509.Certificate
	key         *ecdsa.PrivateKey
}

// writePki writes a CA, a certificate and a kubeconfig of each user, and the key that signs service account tokens.
func (r run) writePki() error {
	ca, err := r.writeAuthority()
	if err != nil {
		return err
	}
	for user, name := range users {
		if err := r.writeUser(ca, user, name); err != nil {
			return fmt.Errorf("certificate of %s: %w", user, err)
		}
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	public, err := x509.MarshalPKIXPublicKey(&key.PublicKey)
	if err != nil {
		return err
	}
	if err := writePem(r.path("pki", "sa.pub"), "PUBLIC KEY", public); err != nil {
		return err
	}
	return writeKey(r.path("pki", "sa.key"), key)
}

func (r run) writeAuthority() (authority, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return authority{}, err
	}
	template := &x509.Certificate{
		SerialNumber:          big.NewInt(1),
		Subject:               pkix.Name{CommonName: r.name},
		NotBefore:             time.Now().Add(-time.Minute),
		NotAfter:              time.Now().Add(certificateLife),
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
		BasicConstraintsValid: true,
		IsCA:                  true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		return authority{}, err
	}
	certificate, err := x509.ParseCertificate(der)
	if err != nil {
		return authority{}, err
	}
	return authority{certificate, key}, writePem(r.path("pki", "ca.crt"), "CERTIFICATE", der)
}

// Each certificate serves both directions: the same one is shown by the API server and the kubelet as servers.
func (r run) writeUser(ca authority, user string, name pkix.Name) error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	serial, err := rand.Int(rand.Reader, big.NewInt(1<<62))
	if err != nil {
		return err
	}
	template := &x509.Certificate{
		SerialNumber: serial,
		Subject:      name,
		NotBefore:    ca.certificate.NotBefore,
		NotAfter:     ca.certificate.NotAfter,
		KeyUsage:     x509.KeyUsageDigitalSignature,
		ExtKeyUsage:  []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		DNSNames:     []string{"localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc", nodeName},
		IPAddresses:  []net.IP{net.ParseIP("127.0.0.1"), net.ParseIP(nodeAddress), net.ParseIP(serviceAddress)},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, ca.certificate, &key.PublicKey, ca.key)
	if err != nil {
		return err
	}
	if err := writePem(r.path("pki", user+".crt"), "CERTIFICATE", der); err != nil {
		return err
	}
	if err := writeKey(r.path("pki", user+".key"), key); err != nil {
		return err
	}
	return os.WriteFile(r.kubeconfig(user), []byte(r.kubeconfigText(user)), 0o600)
}

func writeKey(path string, key *ecdsa.PrivateKey) error {
	der, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		return err
	}
	return writePem(path, "EC PRIVATE KEY", der)
}

func writePem(path, kind string, der []byte) error {
	return os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600)
}
