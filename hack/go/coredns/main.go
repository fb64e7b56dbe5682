// CoreDNS with the few plugins that service discovery inside the local cluster
// needs. It answers for the cluster's domain only: the cluster has no way out.
package main

import (
	"github.com/coredns/coredns/core/dnsserver"
	"github.com/coredns/coredns/coremain"

	_ "github.com/coredns/coredns/plugin/bind"
	_ "github.com/coredns/coredns/plugin/cache"
	_ "github.com/coredns/coredns/plugin/errors"
	_ "github.com/coredns/coredns/plugin/health"
	_ "github.com/coredns/coredns/plugin/kubernetes"
	_ "github.com/coredns/coredns/plugin/loadbalance"
	_ "github.com/coredns/coredns/plugin/metrics"
	_ "github.com/coredns/coredns/plugin/ready"
	_ "github.com/coredns/coredns/plugin/reload"
	_ "github.com/coredns/coredns/plugin/template"
)

func main() {
	// The order is that in which a query passes through the plugins.
	dnsserver.Directives = []string{
		"reload", "bind", "health", "ready", "prometheus", "errors", "loadbalance", "cache", "template", "kubernetes",
	}
	coremain.Run()
}
