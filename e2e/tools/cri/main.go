// Command larder-cri drives a container runtime over the CRI, as the kubelet
// does. The end-to-end tests use it because ctr takes another path through
// containerd (its own resolver, no CRI registry configuration) and so proves
// nothing about the pulls of a node.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	runtime "k8s.io/cri-api/pkg/apis/runtime/v1"
)

const usage = `larder-cri drives a container runtime over the CRI, as the kubelet does.

Usage:
  larder-cri pull   [flags] IMAGE   pull an image
  larder-cri remove [flags] IMAGE   remove an image; no error if it is not there
  larder-cri images [flags]         list the images that the runtime has
  larder-cri wait   [flags]         wait until the runtime and its image service answer

Flags (before or after IMAGE):
  --socket PATH        the runtime's gRPC socket
                       (default /run/containerd/containerd.sock)
  --timeout DURATION   give up after this long, as 30s or 5m (default 2m0s)
  --username NAME      pull only: what a pod's pull secret would hold
  --password SECRET    pull only; default: the variable LARDER_CRI_PASSWORD

One JSON document goes to standard output:
  pull    {"image", "ref", "elapsedMs"}   ref is the runtime's id of the image
  remove  {"image", "elapsedMs"}
  images  [{"id", "tags", "digests", "size"}]
  wait    {"runtime", "version", "apiVersion", "elapsedMs"}

Exit status: 0 done; 1 the runtime said no or did not answer, its message is on
standard error as "larder-cri: COMMAND: CODE: MESSAGE"; 2 wrong usage.
`

// How often wait asks again. A containerd is up within a second, so a longer
// pause would be most of what wait measures.
const waitPause = 20 * time.Millisecond

type options struct {
	socket   string
	timeout  time.Duration
	username string
	password string
}

// A command calls the runtime and returns what is to be printed.
type command struct {
	run   func(ctx context.Context, conn *grpc.ClientConn, opts options, image string) (any, error)
	image bool // takes an IMAGE argument
}

var commands = map[string]command{
	"pull":   {run: pull, image: true},
	"remove": {run: remove, image: true},
	"images": {run: images},
	"wait":   {run: wait},
}

// usageError is a mistake in the command line, in contrast to a refusal by the runtime.
type usageError struct{ error }

func main() {
	err := run(os.Args[1:], os.Stdout)
	if err == nil {
		return
	}
	var usageErr usageError
	if errors.As(err, &usageErr) {
		fmt.Fprintf(os.Stderr, "larder-cri: %v\nRun larder-cri --help for the usage.\n", err)
		os.Exit(2)
	}
	fmt.Fprintf(os.Stderr, "larder-cri: %v\n", err)
	os.Exit(1)
}

func run(args []string, stdout io.Writer) error {
	if len(args) == 0 {
		return usageError{errors.New("a command is missing: pull, remove, images or wait")}
	}
	name, args := args[0], args[1:]
	if name == "--help" || name == "-help" || name == "-h" || name == "help" {
		_, err := io.WriteString(stdout, usage)
		return err
	}
	cmd, ok := commands[name]
	if !ok {
		return usageError{fmt.Errorf("unknown command %q: pull, remove, images or wait", name)}
	}
	opts, image, err := parse(name, cmd, args)
	if errors.Is(err, flag.ErrHelp) {
		_, err := io.WriteString(stdout, usage)
		return err
	}
	if err != nil {
		return usageError{fmt.Errorf("%s: %w", name, err)}
	}

	conn, err := grpc.NewClient("unix://"+opts.socket,
		grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	defer conn.Close()

	// The kubelet pulls without a deadline. Tests must not hang, so there is one
	// here; a pull that meets it is cancelled in the runtime too, also by Ctrl-C.
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	ctx, cancel := context.WithTimeout(ctx, opts.timeout)
	defer cancel()

	result, err := cmd.run(ctx, conn, opts, image)
	if err != nil && errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return fmt.Errorf("%s: gave up after --timeout %s: %w", name, opts.timeout, explain(err))
	}
	if err != nil {
		return fmt.Errorf("%s: %w", name, explain(err))
	}
	return json.NewEncoder(stdout).Encode(result)
}

// parse reads flags on both sides of IMAGE; package flag stops at the first
// argument that is no flag.
func parse(name string, cmd command, args []string) (options, string, error) {
	opts := options{}
	flags := flag.NewFlagSet(name, flag.ContinueOnError)
	flags.SetOutput(io.Discard)
	flags.StringVar(&opts.socket, "socket", "/run/containerd/containerd.sock", "")
	flags.DurationVar(&opts.timeout, "timeout", 2*time.Minute, "")
	if name == "pull" {
		flags.StringVar(&opts.username, "username", "", "")
		flags.StringVar(&opts.password, "password", os.Getenv("LARDER_CRI_PASSWORD"), "")
	}

	var positional []string
	for {
		if err := flags.Parse(args); err != nil {
			return opts, "", err
		}
		if flags.NArg() == 0 {
			break
		}
		positional = append(positional, flags.Arg(0))
		args = flags.Args()[1:]
	}

	image := ""
	switch {
	case cmd.image && len(positional) != 1:
		return opts, "", fmt.Errorf("takes exactly one IMAGE, got %d", len(positional))
	case !cmd.image && len(positional) != 0:
		return opts, "", fmt.Errorf("takes no argument, got %q", positional[0])
	case cmd.image:
		image = positional[0]
	}
	if image == "" && cmd.image {
		return opts, "", errors.New("IMAGE is empty")
	}
	if opts.timeout <= 0 {
		return opts, "", fmt.Errorf("--timeout %s: must be more than 0", opts.timeout)
	}
	if strings.TrimSpace(opts.socket) == "" {
		return opts, "", errors.New("--socket is empty")
	}
	return opts, image, nil
}

func pull(ctx context.Context, conn *grpc.ClientConn, opts options, image string) (any, error) {
	request := &runtime.PullImageRequest{Image: &runtime.ImageSpec{Image: image}}
	if opts.username != "" {
		request.Auth = &runtime.AuthConfig{Username: opts.username, Password: opts.password}
	}
	started := time.Now()
	response, err := runtime.NewImageServiceClient(conn).PullImage(ctx, request)
	if err != nil {
		return nil, err
	}
	return struct {
		Image     string `json:"image"`
		Ref       string `json:"ref"`
		ElapsedMS int64  `json:"elapsedMs"`
	}{image, response.GetImageRef(), time.Since(started).Milliseconds()}, nil
}

// remove takes the image's other names away too: the runtime removes by id, as
// for the kubelet's garbage collection.
func remove(ctx context.Context, conn *grpc.ClientConn, _ options, image string) (any, error) {
	request := &runtime.RemoveImageRequest{Image: &runtime.ImageSpec{Image: image}}
	started := time.Now()
	if _, err := runtime.NewImageServiceClient(conn).RemoveImage(ctx, request); err != nil {
		return nil, err
	}
	return struct {
		Image     string `json:"image"`
		ElapsedMS int64  `json:"elapsedMs"`
	}{image, time.Since(started).Milliseconds()}, nil
}

type imageInfo struct {
	ID      string   `json:"id"`
	Tags    []string `json:"tags"`
	Digests []string `json:"digests"`
	Size    uint64   `json:"size"`
}

func images(ctx context.Context, conn *grpc.ClientConn, _ options, _ string) (any, error) {
	response, err := runtime.NewImageServiceClient(conn).ListImages(ctx, &runtime.ListImagesRequest{})
	if err != nil {
		return nil, err
	}
	infos := make([]imageInfo, 0, len(response.GetImages()))
	for _, image := range response.GetImages() {
		// Never null in the JSON, so that a reader can iterate without a check.
		info := imageInfo{ID: image.GetId(), Tags: []string{}, Digests: []string{}, Size: image.GetSize()}
		info.Tags = append(info.Tags, image.GetRepoTags()...)
		info.Digests = append(info.Digests, image.GetRepoDigests()...)
		infos = append(infos, info)
	}
	return infos, nil
}

// wait asks until both services answer. The socket appears long before the CRI
// plugin is registered behind it, and the two services register one by one.
func wait(ctx context.Context, conn *grpc.ClientConn, _ options, _ string) (any, error) {
	started := time.Now()
	for {
		version, err := ready(ctx, conn)
		if err == nil {
			return struct {
				Runtime    string `json:"runtime"`
				Version    string `json:"version"`
				APIVersion string `json:"apiVersion"`
				ElapsedMS  int64  `json:"elapsedMs"`
			}{version.GetRuntimeName(), version.GetRuntimeVersion(), version.GetRuntimeApiVersion(), time.Since(started).Milliseconds()}, nil
		}
		select {
		case <-ctx.Done():
			return nil, err
		case <-time.After(waitPause):
		}
		// gRPC's own pause between connection attempts grows to seconds.
		conn.ResetConnectBackoff()
	}
}

func ready(ctx context.Context, conn *grpc.ClientConn) (*runtime.VersionResponse, error) {
	version, err := runtime.NewRuntimeServiceClient(conn).Version(ctx, &runtime.VersionRequest{})
	if err != nil {
		return nil, err
	}
	_, err = runtime.NewImageServiceClient(conn).ListImages(ctx, &runtime.ListImagesRequest{})
	return version, err
}

// explain turns a gRPC error into "CODE: MESSAGE", without the wording of the
// gRPC library around it. Other errors stay as they are.
func explain(err error) error {
	answer, ok := status.FromError(err)
	if !ok || answer.Code() == codes.OK {
		return err
	}
	return fmt.Errorf("%s: %s", answer.Code(), answer.Message())
}
