package main

import (
	"errors"
	"io"
	"os"
	"path/filepath"
)

// pauseImage holds the namespaces of each pod.
const pauseImage = "localhost/pause:1"

// insideMark says that this process is in the cluster's namespaces.
const insideMark = "CLUSTER_INSIDE"

const containerfile = `FROM scratch
COPY program /program
USER 65532:65532
ENTRYPOINT ["/program"]
`

// image builds an image of one static program, or of a folder with a Containerfile, and imports it under each name.
// There is no registry: pods need `imagePullPolicy: Never`, or a tag other than `latest`.
func image(r run, args []string) error {
	if len(args) < 2 {
		return errors.New("usage: image PROGRAM|FOLDER NAME...")
	}
	if os.Getenv(insideMark) == "" {
		source, err := filepath.Abs(args[0])
		if err != nil {
			return err
		}
		return enter(r, r.inside(append([]string{"image", source}, args[1:]...)))
	}
	if info, err := os.Stat(args[0]); err == nil && info.IsDir() {
		return r.importFolder(args[0], args[1:])
	}
	return r.importProgram(args[0], args[1:])
}

// importArchives imports OCI archives, as `buildah push NAME oci-archive:FILE:NAME` writes them.
func importArchives(r run, args []string) error {
	line := []string{r.program("ctr"), "images", "import"}
	if len(args) != 1 {
		return errors.New("usage: import ARCHIVE")
	}
	archive, err := filepath.Abs(args[0])
	if err != nil {
		return err
	}
	return enter(r, append(line, archive))
}

func (r run) inside(args []string) []string {
	return append([]string{"env", insideMark + "=1"}, r.self(args...)...)
}

func (r run) importProgram(program string, names []string) error {
	folder, err := os.MkdirTemp(r.path("tmp"), "image-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(folder)
	if err := copyFile(program, filepath.Join(folder, "program")); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(folder, "Containerfile"), []byte(containerfile), 0o644); err != nil {
		return err
	}
	return r.importFolder(folder, names)
}

// importFolder builds a Containerfile. The storage is a folder of its own, with a driver that mounts nothing.
func (r run) importFolder(folder string, names []string) error {
	work, err := os.MkdirTemp(r.path("tmp"), "buildah-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(work)
	archive := filepath.Join(work, "archive")
	buildah := func(args ...string) error {
		root, state := filepath.Join(work, "root"), filepath.Join(work, "state")
		storage := []string{"--storage-driver", "vfs", "--root", root, "--runroot", state}
		return runQuietly("buildah", append(storage, args...)...)
	}
	for _, name := range names {
		if err := buildah("bud", "--quiet", "--isolation", "chroot", "--tag", name, folder); err != nil {
			return err
		}
		if err := buildah("push", "--quiet", name, "oci-archive:"+archive+":"+name); err != nil {
			return err
		}
		if err := r.importArchive(archive); err != nil {
			return err
		}
		os.Remove(archive) // the next name would be added to it
	}
	return nil
}

func (r run) importArchive(archive string) error {
	socket := []string{"--address", r.containerdSocket(), "--namespace", "k8s.io"}
	return runQuietly(r.program("ctr"), append(socket, "images", "import", archive)...)
}

func copyFile(from, to string) error {
	source, err := os.Open(from)
	if err != nil {
		return err
	}
	defer source.Close()
	target, err := os.OpenFile(to, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o755)
	if err != nil {
		return err
	}
	_, err = io.Copy(target, source)
	return errors.Join(err, target.Close())
}
