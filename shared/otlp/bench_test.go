package otlp

import (
	"fmt"
	"testing"
)

// A request as an agent sends it: a batch of 512 records with a dozen attributes.
func BenchmarkDecode(b *testing.B) {
	attributes := attr("gen_ai.operation.name", "chat") + "," + attr("gen_ai.request.model", "gpt-5-mini") + "," + attr("gen_ai.response.id", "chatcmpl-8Zq1X") + `,
	  {"key":"gen_ai.usage.input_tokens","value":{"intValue":"1234"}},{"key":"gen_ai.usage.output_tokens","value":{"intValue":"567"}},{"key":"gen_ai.request.temperature","value":{"doubleValue":0.7}},
	  {"key":"gen_ai.response.finish_reasons","value":{"arrayValue":{"values":[{"stringValue":"stop"}]}}},` + attr("server.address", "api.example.com") + "," + attr("http.request.method", "POST")
	repeat := func(record string) []string {
		list := make([]string, 512)
		for i := range list {
			list[i] = record
		}
		return list
	}
	for s, body := range map[Signal]string{
		Logs:    inLogs(attr("service.name", "coder"), repeat(`{`+atTen+`,"severityNumber":9,"severityText":"INFO","body":{"stringValue":"model call finished in 1.2 s, 567 tokens were written"},`+spanIDs+`,"attributes":[`+attributes+`]}`)...),
		Traces:  inSpans(attr("service.name", "coder"), repeat(`{`+spanIDs+`,`+spanTime+`,"name":"chat gpt-5-mini","kind":3,"attributes":[`+attributes+`]}`)...),
		Metrics: inMetrics(repeat(`{"name":"gen_ai.client.operation.duration","unit":"s","histogram":{"aggregationTemporality":1,"dataPoints":[{` + atTen + `,"count":3,"sum":1,"bucketCounts":[1,1,1],"explicitBounds":[1,2],"attributes":[` + attr("gen_ai.request.model", "gpt-5-mini") + `]}]}}`)...),
	} {
		for f, body := range map[Format][]byte{JSON: []byte(body), Protobuf: inProtobuf(b, s, body)} {
			b.Run(fmt.Sprintf("%s/%s", s, map[Format]string{JSON: "json", Protobuf: "protobuf"}[f]), func(b *testing.B) {
				b.ReportAllocs()
				b.SetBytes(int64(len(body)))
				for b.Loop() {
					if _, err := Decode(s, f, body, options()); err != nil {
						b.Fatal(err)
					}
				}
				b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/512, "ns/record")
			})
		}
	}
}
