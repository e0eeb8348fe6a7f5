package main

import (
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
)

// storageClass is the default class. Its volumes are folders of the run folder.
const storageClass = "local"

// selectedNode is how the scheduler says that a pod with this claim has a node.
const selectedNode = "volume.kubernetes.io/selected-node"

// A provisioner makes a volume for each claim that the scheduler has placed, and removes volumes that were released.
type provisioner struct {
	api    *api
	folder string
}

type claim struct {
	Metadata metadata
	Spec     struct {
		StorageClassName string
		VolumeName       string
		AccessModes      []string
		Resources        struct{ Requests map[string]string }
	}
}

type volume struct {
	Metadata metadata
	Spec     struct{ StorageClassName string }
	Status   struct{ Phase string }
}

func newProvisioner(api *api, folder string) *provisioner {
	return &provisioner{api: api, folder: folder}
}

func (a *api) makeStorageClass() error {
	return a.send(http.MethodPost, "/apis/storage.k8s.io/v1/storageclasses", map[string]any{
		"metadata": map[string]any{
			"name":        storageClass,
			"annotations": map[string]string{"storageclass.kubernetes.io/is-default-class": "true"},
		},
		"provisioner":       "tallygate.test/folder",
		"volumeBindingMode": "WaitForFirstConsumer",
		"reclaimPolicy":     "Delete",
	}, nil)
}

func (p *provisioner) work() {
	go watch(p.api, "/api/v1/persistentvolumes", p.removeReleased)
	watch(p.api, "/api/v1/persistentvolumeclaims", p.provide)
}

func (p *provisioner) provide(event change[claim]) error {
	claim := event.Object
	isOurs := claim.Spec.StorageClassName == storageClass && claim.Spec.VolumeName == ""
	if event.Type == "DELETED" || !isOurs || claim.Metadata.Annotations[selectedNode] == "" {
		return nil
	}
	name := "pvc-" + claim.Metadata.UID
	folder := filepath.Join(p.folder, name)
	if err := os.MkdirAll(folder, 0o755); err != nil {
		return err
	}
	return p.api.send(http.MethodPost, "/api/v1/persistentvolumes", map[string]any{
		"metadata": map[string]any{"name": name},
		"spec": map[string]any{
			"storageClassName":              storageClass,
			"persistentVolumeReclaimPolicy": "Delete",
			"accessModes":                   claim.Spec.AccessModes,
			"capacity":                      claim.Spec.Resources.Requests,
			"local":                         map[string]string{"path": folder},
			"nodeAffinity":                  onlyThisNode(),
			"claimRef": map[string]string{
				"apiVersion": "v1", "kind": "PersistentVolumeClaim",
				"namespace": claim.Metadata.Namespace, "name": claim.Metadata.Name, "uid": claim.Metadata.UID,
			},
		},
	}, nil)
}

func onlyThisNode() map[string]any {
	term := map[string]any{"key": "kubernetes.io/hostname", "operator": "In", "values": []string{nodeName}}
	terms := []any{map[string]any{"matchExpressions": []any{term}}}
	return map[string]any{"required": map[string]any{"nodeSelectorTerms": terms}}
}

// removeReleased deletes the folder first: a volume without a folder is tried again, and a folder without a volume is
// never found.
func (p *provisioner) removeReleased(event change[volume]) error {
	volume := event.Object
	if volume.Spec.StorageClassName != storageClass || volume.Status.Phase != "Released" || event.Type == "DELETED" {
		return nil
	}
	return errors.Join(
		os.RemoveAll(filepath.Join(p.folder, volume.Metadata.Name)),
		p.api.send(http.MethodDelete, fmt.Sprintf("/api/v1/persistentvolumes/%s", volume.Metadata.Name), nil, nil))
}
