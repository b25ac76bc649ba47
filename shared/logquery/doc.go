// Package logquery reads the grammar in which people ask for logs: the same in
// the API's q parameter, on streams and in the dashboard.
//
//	query   = either
//	either  = all { "OR" all }                    OR binds less than "and"
//	all     = term { ["AND"] term }               terms side by side are all met
//	term    = ("-" | "NOT") term | "(" either ")" | field | regexp | text
//	field   = name ":" ( value | "(" value { ["OR"] value } ")" )
//	        | "level:" compare word | "meta." path ":" compare number
//	        | "has:" what
//	regexp  = "/" pattern "/" ["i"]               RE2; matched against the message
//	text    = word | quoted                       part of the message, case ignored
//	value   = word | quoted                       quoted: "…" with \" \\ \n \r \t
//
// Promises:
//
//   - Parse leaves the filter as it was where it returns an error, and the
//     error says where the fault is and what to write instead.
//   - What lists of the filter can say is put there, so that indexes serve it;
//     the rest stands in Where. Together they mean what the text says.
//   - ParseExpr(e.String()) is e. (Property test.)
//   - Whatever the text, reading it takes bounded time and memory, and so does
//     matching what was read: the text, its depth, its terms and the compiled
//     size of its regexps are bounded.
package logquery
