package telemetry

import (
	"regexp/syntax"
	"strings"
	"unicode/utf8"
)

// required returns texts that are in everything that a simplified regexp
// matches, folded semantics, and the longest of them that is there as it is.
func required(re *syntax.Regexp) (parts []string, exact string) {
	w := walk{}
	w.regexp(re)
	w.flush()
	return w.parts, w.exact
}

// walk collects literals; neighbours in a concatenation become one.
type walk struct {
	run   strings.Builder
	fold  bool // of the run
	parts []string
	exact string
}

func (w *walk) flush() {
	text := w.run.String()
	w.run.Reset()
	if text == "" {
		return
	}
	w.parts = union(w.parts, []string{text})
	if !w.fold && len(text) > len(w.exact) {
		w.exact = text
	}
}

func (w *walk) regexp(re *syntax.Regexp) {
	switch re.Op {
	case syntax.OpLiteral:
		w.literal(re)
	case syntax.OpConcat:
		for _, sub := range re.Sub {
			w.regexp(sub)
		}
	case syntax.OpCapture:
		w.regexp(re.Sub[0])
	case syntax.OpPlus:
		w.regexp(re.Sub[0])
		w.flush() // what follows need not follow the first round
	case syntax.OpEmptyMatch, syntax.OpBeginLine, syntax.OpEndLine, syntax.OpBeginText, syntax.OpEndText,
		syntax.OpWordBoundary, syntax.OpNoWordBoundary: // no width: neighbours stay neighbours
	default:
		w.flush()
	}
}

// literal takes runes. Where case is ignored only ASCII is taken: all that
// folds to it in a regexp does so in FoldText too.
func (w *walk) literal(re *syntax.Regexp) {
	fold := re.Flags&syntax.FoldCase != 0
	if fold != w.fold {
		w.flush()
		w.fold = fold
	}
	for _, r := range re.Rune {
		if r == utf8.RuneError || fold && r >= utf8.RuneSelf {
			w.flush() // U+FFFD also matches a byte that is no UTF-8
			continue
		}
		w.run.WriteRune(r)
	}
}
