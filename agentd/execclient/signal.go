package execclient

import (
	"os"
	"os/signal"
	"strconv"
	"sync"
	"syscall"
)

// forwarded are the signals that are meant for the command. Those that the
// kernel sends for our own faults, and those that stop and continue a job, are
// not among them.
var forwarded = []os.Signal{
	syscall.SIGHUP, syscall.SIGINT, syscall.SIGQUIT, syscall.SIGTERM, syscall.SIGUSR1, syscall.SIGUSR2, syscall.SIGALRM, syscall.SIGWINCH,
}

// forward passes signals on until the returned function is called.
func forward(signals chan os.Signal, to *os.Process, o *outputs) (stop func()) {
	end := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			select {
			case s := <-signals:
				switch {
				case s == syscall.SIGWINCH:
					o.resize()
					if o.terminal() {
						continue // its terminal tells it
					}
				case (s == syscall.SIGINT || s == syscall.SIGQUIT) && o.sharesTerminal():
					continue // the terminal's keys reach the command without us
				}
				_ = to.Signal(s) // it may just have ended
			case <-end:
				return
			}
		}
	})
	return func() {
		signal.Stop(signals)
		close(end)
		wg.Wait()
	}
}

// signalName is a signal's name; one without a common name has its number.
func signalName(s syscall.Signal) string {
	names := map[syscall.Signal]string{
		syscall.SIGHUP: "SIGHUP", syscall.SIGINT: "SIGINT", syscall.SIGQUIT: "SIGQUIT", syscall.SIGILL: "SIGILL", syscall.SIGTRAP: "SIGTRAP",
		syscall.SIGABRT: "SIGABRT", syscall.SIGBUS: "SIGBUS", syscall.SIGFPE: "SIGFPE", syscall.SIGKILL: "SIGKILL", syscall.SIGUSR1: "SIGUSR1",
		syscall.SIGSEGV: "SIGSEGV", syscall.SIGUSR2: "SIGUSR2", syscall.SIGPIPE: "SIGPIPE", syscall.SIGALRM: "SIGALRM", syscall.SIGTERM: "SIGTERM",
		syscall.SIGXCPU: "SIGXCPU", syscall.SIGXFSZ: "SIGXFSZ", syscall.SIGSYS: "SIGSYS",
	}
	if name := names[s]; name != "" {
		return name
	}
	return "SIG" + strconv.Itoa(int(s))
}
