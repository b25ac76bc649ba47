package otlp

import "strings"

// Content of model messages is what people and models said to each other, and
// what tools were given and gave back. It is personal more often than not, so
// it is dropped where it comes in, unless the operator allows it. These are the
// attributes by which emitters carry it, some of them among other things.
var contentNames = set(
	// OpenTelemetry, newest and older.
	"gen_ai.input.messages", "gen_ai.output.messages", "gen_ai.system_instructions", "gen_ai.tool.definitions",
	"gen_ai.tool.call.arguments", "gen_ai.tool.call.result", "gen_ai.retrieval.query.text", "gen_ai.retrieval.documents",
	"gen_ai.evaluation.explanation", "gen_ai.prompt", "gen_ai.completion",
	"mcp.request.argument", "mcp.response.value",
	// OpenInference.
	"input.value", "output.value", "llm.invocation_parameters", "llm.prompt_template.template", "llm.prompt_template.variables", "llm.function_call",
	"tool.parameters", "tool_call.function.arguments", "message.content", "document.content", "reranker.query",
	// Vercel AI SDK.
	"ai.prompt", "ai.prompt.messages", "ai.prompt.tools", "ai.response.text", "ai.response.object", "ai.response.reasoning",
	"ai.response.toolCalls", "ai.response.files", "ai.result.text", "ai.result.object", "ai.result.toolCalls",
	"ai.toolCall.args", "ai.toolCall.result", "ai.value", "ai.values", "ai.embedding", "ai.embeddings",
	// OpenLLMetry, Pydantic AI, Google ADK, Langfuse.
	"traceloop.entity.input", "traceloop.entity.output",
	"all_messages_events", "pydantic_ai.all_messages", "events", "final_result", "tool_arguments", "tool_response",
	"gcp.vertex.agent.llm_request", "gcp.vertex.agent.llm_response", "gcp.vertex.agent.tool_call_args",
	"gcp.vertex.agent.tool_response", "gcp.vertex.agent.data",
	"langfuse.observation.input", "langfuse.observation.output", "langfuse.trace.input", "langfuse.trace.output",
	// Claude Code.
	"prompt", "user_prompt", "tool_input", "tool_parameters",
)

// Lists that are flattened into attributes, such as gen_ai.prompt.0.content.
var contentPrefixes = []string{
	"gen_ai.prompt.", "gen_ai.completion.", "llm.input_messages.", "llm.output_messages.", "llm.prompts.", "llm.completions.",
	"llm.tools.", "llm.request.functions.", "retrieval.documents.", "reranker.input_documents.", "reranker.output_documents.",
	"embedding.embeddings.",
}

// What stands in such lists and is no content, by the last part of the name.
var contentHarmless = set("role", "finish_reason", "name", "id", "type", "score")

func set(names ...string) map[string]bool {
	s := make(map[string]bool, len(names))
	for _, n := range names {
		s[n] = true
	}
	return s
}

// isContent reports whether an attribute of that name is content.
func (o *Options) isContent(name string) bool {
	if contentNames[name] {
		return true
	}
	for _, p := range contentPrefixes {
		if strings.HasPrefix(name, p) {
			return !contentHarmless[name[strings.LastIndexByte(name, '.')+1:]]
		}
	}
	for _, own := range o.ContentNames {
		if p, prefix := strings.CutSuffix(own, "*"); prefix && strings.HasPrefix(name, p) || own == name {
			return true
		}
	}
	return false
}

// contentEvent reports whether the body of an event of that name is content:
// the conventions had one event for each message once.
func contentEvent(name string) bool { return strings.HasPrefix(name, "gen_ai.") }
