// discovery tells Prometheus which pods to scrape. Debian's Prometheus is built
// without Kubernetes discovery, so this writes the same labels into a file that
// Prometheus watches (file_sd):
//
//	discovery -server URL -ca FILE -cert FILE -key FILE -node NAME -output FILE
//
// It lists the node's running pods every two seconds, from the API server's
// cache, and replaces the file when something changed.
package main

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/url"
	"os"
	"regexp"
	"sort"
	"time"
)

const (
	interval    = 2 * time.Second
	maxBodySize = 64 << 20
)

type pod struct {
	Metadata struct {
		Name        string            `json:"name"`
		Namespace   string            `json:"namespace"`
		Labels      map[string]string `json:"labels"`
		Annotations map[string]string `json:"annotations"`
	} `json:"metadata"`
	Spec struct {
		NodeName string `json:"nodeName"`
	} `json:"spec"`
	Status struct {
		Phase string `json:"phase"`
		PodIP string `json:"podIP"`
	} `json:"status"`
}

type group struct {
	Targets []string          `json:"targets"`
	Labels  map[string]string `json:"labels"`
}

var notLabelCharacter = regexp.MustCompile(`[^a-zA-Z0-9_]`)

// groupsOf makes one target per pod that asks to be scraped and has an address.
func groupsOf(pods []pod) []group {
	groups := []group{}
	for _, p := range pods {
		if p.Status.PodIP == "" || p.Metadata.Annotations["prometheus.io/scrape"] != "true" {
			continue
		}
		labels := map[string]string{
			"__meta_kubernetes_namespace":     p.Metadata.Namespace,
			"__meta_kubernetes_pod_name":      p.Metadata.Name,
			"__meta_kubernetes_pod_node_name": p.Spec.NodeName,
			"__meta_kubernetes_pod_ip":        p.Status.PodIP,
			"__meta_kubernetes_pod_phase":     p.Status.Phase,
		}
		for name, value := range p.Metadata.Labels {
			labels["__meta_kubernetes_pod_label_"+notLabelCharacter.ReplaceAllString(name, "_")] = value
		}
		for name, value := range p.Metadata.Annotations {
			labels["__meta_kubernetes_pod_annotation_"+notLabelCharacter.ReplaceAllString(name, "_")] = value
		}
		groups = append(groups, group{Targets: []string{p.Status.PodIP}, Labels: labels})
	}
	sort.Slice(groups, func(i, j int) bool {
		a, b := groups[i].Labels, groups[j].Labels
		if a["__meta_kubernetes_namespace"] != b["__meta_kubernetes_namespace"] {
			return a["__meta_kubernetes_namespace"] < b["__meta_kubernetes_namespace"]
		}
		return a["__meta_kubernetes_pod_name"] < b["__meta_kubernetes_pod_name"]
	})
	return groups
}

func newClient(caFile, certFile, keyFile string) (*http.Client, error) {
	ca, err := os.ReadFile(caFile)
	if err != nil {
		return nil, err
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(ca) {
		return nil, fmt.Errorf("%s holds no certificate", caFile)
	}
	cert, err := tls.LoadX509KeyPair(certFile, keyFile)
	if err != nil {
		return nil, err
	}
	return &http.Client{
		Timeout:   10 * time.Second,
		Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots, Certificates: []tls.Certificate{cert}}},
	}, nil
}

func list(client *http.Client, server, node string) ([]pod, error) {
	query := url.Values{
		"fieldSelector":   {"spec.nodeName=" + node + ",status.phase=Running"},
		"resourceVersion": {"0"}, // the server's cache is new enough
	}
	response, err := client.Get(server + "/api/v1/pods?" + query.Encode())
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(io.LimitReader(response.Body, maxBodySize))
	if err != nil {
		return nil, err
	}
	if response.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("listing pods: %s: %.200s", response.Status, body)
	}
	var answer struct {
		Items []pod `json:"items"`
	}
	if err := json.Unmarshal(body, &answer); err != nil {
		return nil, fmt.Errorf("listing pods: %w", err)
	}
	return answer.Items, nil
}

func replace(path string, content []byte) error {
	temporary := path + ".new"
	if err := os.WriteFile(temporary, content, 0o644); err != nil {
		return err
	}
	return os.Rename(temporary, path)
}

func main() {
	server := flag.String("server", "", "URL of the API server")
	ca := flag.String("ca", "", "its CA certificate")
	cert := flag.String("cert", "", "client certificate")
	key := flag.String("key", "", "its key")
	node := flag.String("node", "", "the node whose pods are scraped")
	output := flag.String("output", "", "the file_sd file")
	flag.Parse()
	client, err := newClient(*ca, *cert, *key)
	if err != nil {
		log.Fatalf("discovery: %v", err)
	}
	var written []byte
	for lastError := ""; ; time.Sleep(interval) {
		pods, err := list(client, *server, *node)
		if err != nil {
			if err.Error() != lastError { // once, not every two seconds
				log.Printf("discovery: %v", err)
				lastError = err.Error()
			}
			continue
		}
		lastError = ""
		content, err := json.MarshalIndent(groupsOf(pods), "", " ")
		if err != nil {
			log.Fatalf("discovery: %v", err)
		}
		if bytes.Equal(content, written) {
			continue
		}
		if err := replace(*output, content); err != nil {
			log.Fatalf("discovery: %v", err)
		}
		written = content
	}
}
