package tree

import (
	"math"
	"strconv"
	"strings"
)

// decimal is a number's value: 0.digits times ten to the power exp, digits
// without zeros at either end; no digits for zero.
type decimal struct {
	neg    bool
	digits string
	exp    int
}

func parseDecimal(s string) decimal {
	var d decimal
	if strings.HasPrefix(s, "-") {
		d.neg = true
		s = s[1:]
	}
	if i := strings.IndexAny(s, "eE"); i >= 0 {
		d.exp, _ = strconv.Atoi(s[i+1:]) // in range: CheckNumber bounds the exponent
		s = s[:i]
	}
	if i := strings.IndexByte(s, '.'); i >= 0 {
		d.exp += i
		s = s[:i] + s[i+1:]
	} else {
		d.exp += len(s)
	}
	t := strings.TrimLeft(s, "0")
	d.exp -= len(s) - len(t)
	d.digits = strings.TrimRight(t, "0")
	if d.digits == "" {
		return decimal{}
	}
	return d
}

func numberEqual(a, b string) bool { return a == b || parseDecimal(a) == parseDecimal(b) }

// numberEnd returns the length of the JSON number at the start of b, 0 where
// there is none (RFC 8259 section 6).
func numberEnd[T ~[]byte | ~string](b T) int {
	i := 0
	digits := func() bool {
		start := i
		for i < len(b) && b[i] >= '0' && b[i] <= '9' {
			i++
		}
		return i > start
	}
	if i < len(b) && b[i] == '-' {
		i++
	}
	if i < len(b) && b[i] == '0' {
		i++
	} else if !digits() {
		return 0
	}
	if i < len(b) && b[i] == '.' {
		i++
		if !digits() {
			return 0
		}
	}
	if i < len(b) && (b[i] == 'e' || b[i] == 'E') {
		i++
		if i < len(b) && (b[i] == '+' || b[i] == '-') {
			i++
		}
		if !digits() {
			return 0
		}
	}
	return i
}

// finite reports whether the number has a finite float64 nearest to it, and an
// exponent short enough to reckon with. Others no consumer could read.
func finite(s string) bool {
	if len(s) < 100 && !strings.ContainsAny(s, "eE") {
		return true
	}
	if i := strings.IndexAny(s, "eE"); i >= 0 && len(s)-i > 12 {
		return false
	}
	f, _ := strconv.ParseFloat(s, 64)
	return !math.IsInf(f, 0)
}
