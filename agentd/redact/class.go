package redact

// class is a set of bytes.
type class uint8

// The classes.
const (
	alnum      class = iota // letters and digits
	digit                   // 0-9
	hexLower                // 0-9 a-f
	hexAny                  // 0-9 a-f A-F
	upper                   // A-Z 0-9
	word                    // letters, digits, _
	url64                   // letters, digits, - _
	dotted                  // letters, digits, - _ .
	b64                     // letters, digits, + / =
	urlValue                // what stands in a URL's query: dotted and % + / = ~ *
	credential              // token68 of HTTP: dotted and ~ + / = :
	pemBody                 // base64, space, newlines and their escapes
	name                    // parts of a name: dotted
	afterName               // what may stand between a name and its value
	numClasses
)

// classes has a bit for each class a byte is in.
var classes = func() (t [256]uint32) {
	add := func(c class, bytes string) {
		for i := range len(bytes) {
			t[bytes[i]] |= 1 << c
		}
	}
	const (
		digits  = "0123456789"
		lowers  = "abcdefghijklmnopqrstuvwxyz"
		uppers  = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
		letters = lowers + uppers
	)
	add(alnum, digits+letters)
	add(digit, digits)
	add(hexLower, digits+"abcdef")
	add(hexAny, digits+"abcdefABCDEF")
	add(upper, digits+uppers)
	add(word, digits+letters+"_")
	add(url64, digits+letters+"-_")
	add(dotted, digits+letters+"-_.")
	add(b64, digits+letters+"+/=")
	add(urlValue, digits+letters+"-_.%+/=~*")
	add(credential, digits+letters+"-_.~+/=:")
	add(pemBody, digits+letters+"+/= \t\r\n\\")
	add(name, digits+letters+"-_.")
	add(afterName, "=: >\"'`\\")
	return t
}()
