package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// writeConfigs writes the configuration files of the programs, and the folders they expect.
func (r run) writeConfigs() error {
	for _, folder := range []string{"logs", "pki", "cni", "sysctl", "volumes", "tmp"} {
		if err := os.MkdirAll(r.path(folder), 0o755); err != nil {
			return err
		}
	}
	files := map[string]string{
		"containerd.toml":     containerdConfig,
		"cni/10-kc.conflist":  networkConfig,
		"kubelet.yaml":        kubeletConfig,
		"proxy.yaml":          proxyConfig,
		"pause/Containerfile": containerfile,
	}
	replace := strings.NewReplacer(
		"$RUN", r.folder, "$SOCKET", r.containerdSocket(), "$NAME", r.name, "$NODE", nodeName, "$ADDRESS", nodeAddress,
		"$PODS", podRange, "$FIRST", firstPod, "$LAST", lastPod, "$PAUSE", pauseImage, "$PLUGINS", networkPlugins)
	for name, text := range files {
		if err := os.MkdirAll(filepath.Dir(r.path(name)), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(r.path(name), []byte(replace.Replace(text)), 0o644); err != nil {
			return err
		}
	}
	return nil
}

// Debian's folder of the CNI plugins.
const networkPlugins = "/usr/lib/cni"

// `restrict_oom_score_adj`: without CAP_SYS_RESOURCE, as in many containers, no score can be lowered.
const containerdConfig = `version = 3
root = "$RUN/containerd"
state = "$RUN/containerd-state"
[grpc]
  address = "$SOCKET"
[plugins."io.containerd.internal.v1.opt"]
  path = "$RUN/opt"
[plugins."io.containerd.nri.v1.nri"]
  disable = true
[plugins."io.containerd.cri.v1.images"]
  snapshotter = "overlayfs"
  [plugins."io.containerd.cri.v1.images".pinned_images]
    sandbox = "$PAUSE"
[plugins."io.containerd.cri.v1.runtime"]
  restrict_oom_score_adj = true
  [plugins."io.containerd.cri.v1.runtime".cni]
    bin_dirs = ["$PLUGINS"]
    conf_dir = "$RUN/cni"
  [plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"
    [plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc.options]
      BinaryName = "runc"
      SystemdCgroup = false
`

const networkConfig = `{
  "cniVersion": "1.0.0",
  "name": "kc",
  "plugins": [
    {
      "type": "bridge",
      "bridge": "br0",
      "isGateway": true,
      "hairpinMode": true,
      "ipam": {
        "type": "host-local",
        "dataDir": "$RUN/ipam",
        "ranges": [[{"subnet": "$PODS", "rangeStart": "$FIRST", "rangeEnd": "$LAST", "gateway": "$ADDRESS"}]],
        "routes": [{"dst": "0.0.0.0/0"}]
      }
    },
    {"type": "portmap", "capabilities": {"portMappings": true}}
  ]
}
`

// `failCgroupV1`: the kubelet refuses cgroup v1 otherwise. `localStorageCapacityIsolation`: it finds no figures of
// the file system inside a mount namespace of its own, and needs none.
const kubeletConfig = `apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
failCgroupV1: false
failSwapOn: false
cgroupDriver: cgroupfs
cgroupRoot: /$NAME
enforceNodeAllocatable: []
containerRuntimeEndpoint: unix://$SOCKET
address: $ADDRESS
readOnlyPort: 0
authentication:
  x509: {clientCAFile: $RUN/pki/ca.crt}
  anonymous: {enabled: false}
  webhook: {enabled: true}
authorization: {mode: Webhook}
tlsCertFile: $RUN/pki/node.crt
tlsPrivateKeyFile: $RUN/pki/node.key
evictionHard: {memory.available: "100Mi", nodefs.available: "1%", imagefs.available: "1%"}
imageGCHighThresholdPercent: 100
localStorageCapacityIsolation: false
resolvConf: ""
podLogsDir: $RUN/podlogs
volumePluginDir: $RUN/volumeplugins
maxPods: 250
registerWithTaints: []
`

// The limits of connection tracking belong to the whole machine: 0 leaves them as they are.
const proxyConfig = `apiVersion: kubeproxy.config.k8s.io/v1alpha1
kind: KubeProxyConfiguration
mode: nftables
clientConnection: {kubeconfig: $RUN/pki/proxy.conf}
hostnameOverride: $NODE
clusterCIDR: $PODS
conntrack: {maxPerCore: 0, min: 0, tcpEstablishedTimeout: 0s, tcpCloseWaitTimeout: 0s}
`

const kubeconfigText = `apiVersion: v1
kind: Config
clusters:
- name: %[1]s
  cluster: {server: "https://%[2]s", certificate-authority: %[3]s/ca.crt}
users:
- name: %[4]s
  user: {client-certificate: %[3]s/%[4]s.crt, client-key: %[3]s/%[4]s.key}
contexts:
- name: %[1]s
  context: {cluster: %[1]s, user: %[4]s}
current-context: %[1]s
`

func (r run) kubeconfigText(user string) string {
	return fmt.Sprintf(kubeconfigText, r.name, apiAddress, r.path("pki"), user)
}
