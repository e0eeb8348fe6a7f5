package main

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"time"
)

// watchPause is the time between the end of a watch and the next one.
const watchPause = 500 * time.Millisecond

// An api is a small client of the API server: reads, writes and watches JSON.
type api struct {
	client *http.Client
}

type metadata struct {
	Namespace   string            `json:"namespace,omitempty"`
	Name        string            `json:"name,omitempty"`
	UID         string            `json:"uid,omitempty"`
	Annotations map[string]string `json:"annotations,omitempty"`
}

func (m metadata) key() string { return m.Namespace + "/" + m.Name }

func (r run) newApi(user string) (*api, error) {
	certificate, err := tls.LoadX509KeyPair(r.path("pki", user+".crt"), r.path("pki", user+".key"))
	if err != nil {
		return nil, err
	}
	ca, err := os.ReadFile(r.path("pki", "ca.crt"))
	if err != nil {
		return nil, err
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(ca)
	config := &tls.Config{Certificates: []tls.Certificate{certificate}, RootCAs: roots}
	return &api{client: &http.Client{Transport: &http.Transport{TLSClientConfig: config}}}, nil
}

// send makes a request and decodes the response into `result`, which may be nil. A conflict is no error: the object
// exists already.
func (a *api) send(method, path string, body, result any) error {
	text, err := json.Marshal(body)
	if err != nil {
		return err
	}
	request, err := http.NewRequest(method, "https://"+apiAddress+path, bytes.NewReader(text))
	if err != nil {
		return err
	}
	request.Header.Set("Content-Type", "application/json")
	if method == http.MethodPatch {
		request.Header.Set("Content-Type", "application/merge-patch+json")
	}
	response, err := a.client.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	text, err = io.ReadAll(response.Body)
	if err != nil {
		return err
	}
	if response.StatusCode >= 300 && response.StatusCode != http.StatusConflict {
		return fmt.Errorf("%s %s: %s: %s", method, path, response.Status, text)
	}
	if result == nil {
		return nil
	}
	return json.Unmarshal(text, result)
}

func (a *api) nodeIsReady() error {
	var node struct {
		Status struct {
			Conditions []struct{ Type, Status, Message string }
		}
	}
	if err := a.send(http.MethodGet, "/api/v1/nodes/"+nodeName, nil, &node); err != nil {
		return err
	}
	for _, condition := range node.Status.Conditions {
		if condition.Type == "Ready" && condition.Status == "True" {
			// Pods are refused until the namespace has its service account.
			return a.send(http.MethodGet, "/api/v1/namespaces/default/serviceaccounts/default", nil, nil)
		} else if condition.Type == "Ready" {
			return errors.New(condition.Message)
		}
	}
	return errors.New("the node has no condition Ready")
}

// A change is one event of a watch.
type change[T any] struct {
	Type   string
	Object T
}

// watch calls `handle` for each object there is, and then for each change, for ever. After an error all objects are
// handled again.
func watch[T any](a *api, path string, handle func(change[T]) error) {
	for {
		if err := watchOnce(a, path, handle); err != nil {
			fmt.Printf("watch of %s: %v\n", path, err)
		}
		time.Sleep(watchPause)
	}
}

func watchOnce[T any](a *api, path string, handle func(change[T]) error) error {
	response, err := a.client.Get("https://" + apiAddress + path + "?watch=true")
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return errors.New(response.Status)
	}
	for decoder := json.NewDecoder(response.Body); ; {
		var event change[T]
		if err := decoder.Decode(&event); err == io.EOF {
			return nil // the server ends each watch after some minutes
		} else if err != nil {
			return err
		}
		if event.Type == "ERROR" {
			return errors.New("the server ended the watch")
		}
		if err := handle(event); err != nil {
			return err
		}
	}
}
