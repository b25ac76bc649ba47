package aggregator

import (
	"strings"
	"testing"
)

func TestEveryBadSettingIsNamed(t *testing.T) {
	c := Default()
	c.DataDir, c.AuthorityDir = "relative", "too"
	c.Listen.API, c.Listen.Ingest = "8080", ""
	c.Database.Retention = 1
	c.Quota.RecordsPerSecond = 0
	c.Database.Classes = []string{"1=2160h", "2=1m"}
	c.Compaction.Workers, c.Query.CountBudget = 0, 0
	c.AllowedOrigins = []string{"https://ok.example", "example.com"}
	c.Log.Format = "xml"
	err := c.Validate()
	if err == nil {
		t.Fatal("taken")
	}
	for _, want := range []string{"data_dir", "authority_dir", "listen.api", "listen.ingest", "database.retention", "quota", "retention_classes", "compaction", "query", `"example.com"`, "log.format"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%s is not named in:\n%v", want, err)
		}
	}
	if strings.Contains(err.Error(), "ok.example") {
		t.Errorf("a good origin is refused:\n%v", err)
	}
	good := Default()
	good.Database.Classes = []string{"1=2160h", " 99 = 8760h"}
	if err := good.Validate(); err != nil {
		t.Errorf("the defaults are refused: %v", err)
	}
}
