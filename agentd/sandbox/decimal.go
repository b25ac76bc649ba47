package sandbox

import (
	"errors"
	"math"
	"strconv"
	"strings"
)

// nanosPerCentDigits is how many places the point moves from cents to the
// units of telemetry.Money.
const nanosPerCentDigits = 7

var errDecimal = errors.New("is not a number that can be kept")

// decimal reads a JSON number exactly and returns it times 10^shift, halves
// rounded away from zero. No number of digits or exponent makes it slow.
func decimal(text string, shift int) (int64, error) {
	rest, negative := strings.CutPrefix(text, "-")
	mantissa, exponent := rest, 0
	if i := strings.IndexAny(rest, "eE"); i >= 0 {
		e, err := strconv.ParseInt(strings.TrimPrefix(rest[i+1:], "+"), 10, 16)
		if err != nil {
			return 0, errDecimal
		}
		mantissa, exponent = rest[:i], int(e)
	}
	whole, fraction, _ := strings.Cut(mantissa, ".")
	digits := whole + fraction
	if digits == "" || strings.Trim(digits, "0123456789") != "" {
		return 0, errDecimal
	}
	point := len(whole) + exponent + shift // the place of the point within digits
	zeros := len(digits) - len(strings.TrimLeft(digits, "0"))
	digits, point = digits[zeros:], point-zeros
	switch {
	case digits == "" || point < 0:
		return 0, nil
	case point > len("9223372036854775807"):
		return 0, errDecimal
	}
	up := point < len(digits) && digits[point] >= '5'
	if point <= len(digits) {
		digits = digits[:point]
	} else {
		digits += strings.Repeat("0", point-len(digits))
	}
	n := int64(0)
	if digits != "" {
		var err error
		if n, err = strconv.ParseInt(digits, 10, 64); err != nil || n == math.MaxInt64 {
			return 0, errDecimal
		}
	}
	if up {
		n++
	}
	if negative {
		n = -n
	}
	return n, nil
}
