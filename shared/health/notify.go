package health

import (
	"context"
	"os"
	"strconv"
	"time"
)

// Notify sends a state such as "READY=1" to systemd, where it runs us
// (sd_notify(3)); elsewhere it does nothing.
func Notify(ctx context.Context, state string) error {
	address := notifyAddress()
	if address == "" {
		return nil
	}
	conn, err := dialNotify(ctx, address)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }()
	_, err = conn.Write([]byte(state))
	return err
}

// notifyAddress is where systemd listens; empty where it does not run us.
func notifyAddress() string {
	address := os.Getenv("NOTIFY_SOCKET")
	if address != "" && address[0] == '@' { // an abstract socket
		address = "\x00" + address[1:]
	}
	return address
}

// Watchdog tells systemd at half its interval that we are alive, as long as
// alive returns no error. It returns when ctx ends, or at once where no
// watchdog is set.
func Watchdog(ctx context.Context, alive func(context.Context) error) {
	us, err := strconv.ParseInt(os.Getenv("WATCHDOG_USEC"), 10, 64)
	if err != nil || us <= 0 {
		return
	}
	tick := time.NewTicker(time.Duration(us) * time.Microsecond / 2)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			if alive(ctx) == nil {
				_ = Notify(ctx, "WATCHDOG=1") // systemd restarts us if this goes on failing
			}
		}
	}
}
