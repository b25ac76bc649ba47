package health

import (
	"context"
	"net"
	"os"
	"strconv"
	"time"
)

// Notify sends a state such as "READY=1" to systemd, where it runs us
// (sd_notify(3)); elsewhere it does nothing.
func Notify(ctx context.Context, state string) error {
	address := os.Getenv("NOTIFY_SOCKET")
	if address == "" {
		return nil
	}
	if address[0] == '@' { // an abstract socket
		address = "\x00" + address[1:]
	}
	var d net.Dialer
	conn, err := d.DialContext(ctx, "unixgram", address)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }()
	_, err = conn.Write([]byte(state))
	return err
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
