package conformance

import (
	"context"
	"errors"
	"fmt"
	"os/signal"
	"slices"
	"syscall"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	meta1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/config"
	gateway "sigs.k8s.io/gateway-api/apis/v1"
	"sigs.k8s.io/gateway-api/pkg/features"
)

// pretendInterval is how often the imitation looks for objects, and pretendLimit how long it lives.
const (
	pretendInterval = 200 * time.Millisecond
	pretendLimit    = 30 * time.Minute
)

// pretend is a controller that accepts the GatewayClass and its Gateways in their status, and does nothing else. With
// it the runner is proven: the setup succeeds, and every test that needs a route or a connection fails.
func pretend(arguments []string) error {
	if len(arguments) > 0 {
		return errors.New("usage: pretend")
	}
	ctx, cancel := context.WithTimeout(context.Background(), pretendLimit)
	defer cancel()
	ctx, stop := signal.NotifyContext(ctx, syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	settings, err := config.GetConfig()
	if err != nil {
		return err
	}
	api, err := client.New(settings, client.Options{})
	if err != nil {
		return err
	}
	if err := gateway.Install(api.Scheme()); err != nil {
		return err
	}
	for ctx.Err() == nil {
		if err := acceptAll(ctx, api); err != nil && ctx.Err() == nil {
			fmt.Fprintln(terminal, "pretend:", err)
		}
		select {
		case <-time.After(pretendInterval):
		case <-ctx.Done():
		}
	}
	return nil
}

func acceptAll(ctx context.Context, api client.Client) error {
	var classes gateway.GatewayClassList
	if err := api.List(ctx, &classes); err != nil {
		return err
	}
	for _, class := range classes.Items {
		if class.Spec.ControllerName != controllerName {
			continue
		}
		if err := acceptClass(ctx, api, class); err != nil {
			return err
		}
		if err := acceptGateways(ctx, api, class.Name); err != nil {
			return err
		}
	}
	return nil
}

func acceptClass(ctx context.Context, api client.Client, class gateway.GatewayClass) error {
	if !setConditions(&class.Status.Conditions, class.Generation, "Accepted") {
		return nil
	}
	class.Status.SupportedFeatures = nil
	for _, name := range []features.FeatureName{features.SupportGateway, features.SupportGRPCRoute,
		features.SupportHTTPRoute, features.SupportReferenceGrant, features.SupportTLSRoute} {
		feature := gateway.SupportedFeature{Name: gateway.FeatureName(name)}
		class.Status.SupportedFeatures = append(class.Status.SupportedFeatures, feature)
	}
	slices.SortFunc(class.Status.SupportedFeatures, func(a, b gateway.SupportedFeature) int {
		if a.Name < b.Name {
			return -1
		}
		return 1
	})
	return api.Status().Update(ctx, &class)
}

func acceptGateways(ctx context.Context, api client.Client, class string) error {
	var gateways gateway.GatewayList
	if err := api.List(ctx, &gateways); err != nil {
		return err
	}
	for _, found := range gateways.Items {
		if string(found.Spec.GatewayClassName) != class ||
			!setConditions(&found.Status.Conditions, found.Generation, "Accepted", "Programmed") {
			continue
		}
		if err := api.Status().Update(ctx, &found); err != nil {
			return err
		}
	}
	return nil
}

// setConditions says whether anything has changed.
func setConditions(conditions *[]meta1.Condition, generation int64, kinds ...string) bool {
	hasChanged := false
	for _, kind := range kinds {
		hasChanged = meta.SetStatusCondition(conditions, meta1.Condition{
			Type: kind, Status: meta1.ConditionTrue, Reason: kind, ObservedGeneration: generation,
		}) || hasChanged
	}
	return hasChanged
}
