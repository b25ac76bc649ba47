package telemetry

// Mode is how much of an organisation's agents the platform runs.
type Mode string

// The modes.
const (
	FullPlatform   Mode = "full_platform"
	BYOIPrimitives Mode = "byoi_primitives"
	InfraOnly      Mode = "infra_only"
)

// BillingMode says who pays providers for what.
type BillingMode string

// The billing modes.
const (
	Managed     BillingMode = "managed"
	BYOICompute BillingMode = "byoi_compute"
	BYOIModels  BillingMode = "byoi_models"
	BYOIBoth    BillingMode = "byoi_both"
)

// Organisation is a tenant.
type Organisation struct {
	ID          OrgID       `json:"id"`
	Name        string      `json:"name"`
	Mode        Mode        `json:"mode"`
	BillingMode BillingMode `json:"billingMode"`
}
