package store_test

import (
	"testing"

	"github.com/theazo/observability/aggregator/store/storetest"
)

func TestMain(m *testing.M) { storetest.Main(m) }
