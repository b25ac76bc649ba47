package redact

// tokens is what providers' credentials look like. An id may stand in several
// entries. Lengths are as strict as the providers' own statements allow;
// where a provider says nothing, a check for random text keeps words out.
var tokens = []token{
	// Models.
	{id: "anthropic-key", prefixes: []string{"sk-ant-"}, class: url64, min: 20},
	{id: "openai-key", prefixes: []string{"sk-proj-", "sk-svcacct-", "sk-admin-", "sk-None-"}, class: url64, min: 20},
	{id: "openai-key", prefixes: []string{"sk-"}, class: url64, min: 20, check: dense}, // also those who copied the form
	{id: "openrouter-key", prefixes: []string{"sk-or-"}, class: url64, min: 20},
	{id: "langfuse-key", prefixes: []string{"sk-lf-"}, class: url64, min: 32},
	{id: "google-key", prefixes: []string{"AIza"}, class: url64, min: 35, max: 35},
	{id: "google-oauth", prefixes: []string{"GOCSPX-"}, class: url64, min: 24, max: 40},
	{id: "google-oauth", prefixes: []string{"ya29."}, class: dotted, min: 20, check: hasDigit},
	{id: "huggingface-token", prefixes: []string{"hf_", "api_org_"}, class: alnum, min: 30, max: 44},
	{id: "groq-key", prefixes: []string{"gsk_"}, class: alnum, min: 40},
	{id: "xai-key", prefixes: []string{"xai-"}, class: alnum, min: 60},
	{id: "perplexity-key", prefixes: []string{"pplx-"}, class: alnum, min: 40},
	{id: "replicate-token", prefixes: []string{"r8_"}, class: alnum, min: 37, max: 40},
	{id: "cerebras-key", prefixes: []string{"csk-"}, class: alnum, min: 40},
	{id: "nvidia-key", prefixes: []string{"nvapi-"}, class: url64, min: 50},
	{id: "together-key", prefixes: []string{"tgp_v1_"}, class: url64, min: 30},
	{id: "tavily-key", prefixes: []string{"tvly-"}, class: url64, min: 20, check: dense},
	{id: "langsmith-key", prefixes: []string{"lsv2_pt_", "lsv2_sk_"}, class: word, min: 32},
	{id: "firecrawl-key", prefixes: []string{"fc-"}, class: hexLower, min: 32, max: 32},
	{id: "elevenlabs-key", prefixes: []string{"sk_"}, class: hexLower, min: 48, max: 48},
	{id: "pinecone-key", prefixes: []string{"pcsk_"}, class: word, min: 40},

	// Clouds, hosts and sandboxes.
	{id: "aws-access-key", prefixes: []string{"AKIA", "ASIA", "ABIA", "ACCA", "A3T0", "A3TX"}, class: upper, min: 16, max: 16},
	{id: "aws-bedrock-key", prefixes: []string{"ABSK"}, class: b64, min: 80},
	{id: "azure-secret", prefixes: azureSecrets, class: dotted, min: 30, max: 38, before: struct {
		class    class
		min, max int
	}{dotted, 3, 3}},
	{id: "digitalocean-token", prefixes: []string{"dop_v1_", "doo_v1_", "dor_v1_"}, class: hexLower, min: 64, max: 64},
	{id: "fly-token", prefixes: []string{"fo1_"}, class: url64, min: 40},
	{id: "fly-token", prefixes: []string{"fm1a_", "fm1r_", "fm2_"}, class: b64, min: 80},
	{id: "e2b-key", prefixes: []string{"e2b_", "sk_e2b_"}, class: alnum, min: 32, check: hasDigit},
	{id: "theazo-key", prefixes: []string{"th_live_", "th_test_"}, class: word, min: 60},
	{id: "theazo-key", prefixes: []string{"thz_", "thj_", "thc_"}, class: word, min: 43},
	{id: "heroku-key", prefixes: []string{"HRKU-"}, class: url64, min: 36},
	{id: "vercel-token", prefixes: []string{"vcp_", "vck_", "vercel_blob_rw_"}, class: word, min: 24, check: hasDigit},
	{id: "netlify-token", prefixes: []string{"nfp_"}, class: alnum, min: 36},
	{id: "cloudflare-key", prefixes: []string{"v1.0-"}, class: url64, min: 140},
	{id: "alibaba-key", prefixes: []string{"LTAI"}, class: alnum, min: 16, max: 24, check: mixed},
	{id: "databricks-token", prefixes: []string{"dapi"}, class: hexLower, min: 32, max: 32},
	{id: "supabase-key", prefixes: []string{"sbp_", "sb_secret_"}, class: url64, min: 31},
	{id: "planetscale-token", prefixes: []string{"pscale_tkn_", "pscale_pw_", "pscale_oauth_"}, class: dotted, min: 32},
	{id: "tailscale-key", prefixes: []string{"tskey-"}, class: url64, min: 20, check: hasDigit},
	{id: "vault-token", prefixes: []string{"hvs.", "hvb.", "hvr."}, class: url64, min: 24},
	{id: "terraform-token", prefixes: []string{".atlasv1."}, class: url64, min: 60, anywhere: true, before: struct {
		class    class
		min, max int
	}{alnum, 14, 14}},
	{id: "pulumi-token", prefixes: []string{"pul-"}, class: hexLower, min: 40, max: 40},
	{id: "doppler-token", prefixes: []string{"dp.pt.", "dp.st.", "dp.ct.", "dp.sa.", "dp.scim.", "dp.audit."}, class: dotted, min: 40},

	// Code, packages and registries.
	{id: "github-token", prefixes: []string{"ghp_", "gho_", "ghu_", "ghs_", "ghr_"}, class: word, min: 36},
	{id: "github-token", prefixes: []string{"github_pat_"}, class: word, min: 50},
	{id: "gitlab-token", prefixes: []string{
		"glpat-", "gldt-", "glrt-", "glcbt-", "glptt-", "glft-", "glsoat-", "glagent-", "gloas-", "glimt-",
	}, class: dotted, min: 20},
	{id: "bitbucket-token", prefixes: []string{"ATBB", "ATCTT3", "ATATT3"}, class: urlValue, min: 28, check: mixed},
	{id: "npm-token", prefixes: []string{"npm_"}, class: alnum, min: 36, max: 36},
	{id: "pypi-token", prefixes: []string{"pypi-AgE"}, class: url64, min: 50},
	{id: "rubygems-key", prefixes: []string{"rubygems_"}, class: hexLower, min: 48, max: 48},
	{id: "crates-token", prefixes: []string{"cio"}, class: alnum, min: 32, max: 32, check: mixed},
	{id: "nuget-key", prefixes: []string{"oy2"}, class: alnum, min: 43, max: 43, check: hasDigit},
	{id: "docker-token", prefixes: []string{"dckr_pat_", "dckr_oat_"}, class: url64, min: 20},
	{id: "sonar-token", prefixes: []string{"squ_", "sqp_", "sqa_"}, class: hexLower, min: 40, max: 40},
	{id: "postman-key", prefixes: []string{"PMAK-"}, class: url64, min: 40},
	{id: "age-key", prefixes: []string{"AGE-SECRET-KEY-1"}, class: upper, min: 50},
	{id: "1password-token", prefixes: []string{"ops_eyJ"}, class: b64, min: 100},

	// Messages, money and the rest.
	{id: "slack-token", prefixes: []string{"xoxb-", "xoxp-", "xoxa-", "xoxr-", "xoxs-", "xoxc-", "xoxd-", "xoxe-", "xoxe.", "xapp-"}, class: urlValue, min: 16, check: hasDigit},
	{id: "slack-webhook", prefixes: []string{"hooks.slack.com/services/", "hooks.slack.com/workflows/", "hooks.slack.com/triggers/"}, class: urlValue, min: 20, keep: true, anywhere: true},
	{id: "discord-webhook", prefixes: []string{"discord.com/api/webhooks/", "discordapp.com/api/webhooks/"}, class: urlValue, min: 40, keep: true, anywhere: true},
	{id: "telegram-token", prefixes: []string{":AA"}, class: url64, min: 32, max: 34, anywhere: true, before: struct {
		class    class
		min, max int
	}{digit, 8, 11}},
	{id: "stripe-key", prefixes: []string{"sk_live_", "sk_test_", "sk_prod_", "rk_live_", "rk_test_", "rk_prod_"}, class: word, min: 16},
	{id: "webhook-secret", prefixes: []string{"whsec_"}, class: b64, min: 24},
	{id: "twilio-key", prefixes: twilioKeys, class: hexLower, min: 31, max: 31},
	{id: "sendgrid-key", prefixes: []string{"SG."}, class: dotted, min: 60, check: parts('.', 22, 0)},
	{id: "mailgun-key", prefixes: []string{"key-"}, class: hexLower, min: 32, max: 32},
	{id: "resend-key", prefixes: []string{"re_"}, class: word, min: 30, max: 36, check: parts('_', 8, 0)},
	{id: "square-token", prefixes: []string{"sq0atp-", "sq0csp-"}, class: url64, min: 22},
	{id: "shopify-token", prefixes: []string{"shpat_", "shpca_", "shppa_", "shpss_"}, class: hexAny, min: 32, max: 32},
	{id: "linear-key", prefixes: []string{"lin_api_", "lin_oauth_"}, class: alnum, min: 32},
	{id: "notion-token", prefixes: []string{"ntn_"}, class: alnum, min: 40},
	{id: "notion-token", prefixes: []string{"secret_"}, class: alnum, min: 43, max: 43, check: hasDigit},
	{id: "figma-token", prefixes: []string{"figd_"}, class: url64, min: 36},
	{id: "datadog-key", prefixes: []string{"ddapp_", "ddpat_", "pub_dd"}, class: word, min: 32},
	{id: "newrelic-key", prefixes: []string{"NRAK-", "NRII-", "NRJS-", "NRRA-"}, class: url64, min: 19, check: hasDigit},
	{id: "grafana-token", prefixes: []string{"glc_"}, class: b64, min: 32},
	{id: "grafana-token", prefixes: []string{"glsa_"}, class: word, min: 41, max: 41},
	{id: "sentry-token", prefixes: []string{"sntrys_", "sntryu_"}, class: word, min: 60},
	{id: "posthog-key", prefixes: []string{"phx_"}, class: alnum, min: 40},
	{id: "dynatrace-token", prefixes: []string{"dt0c01.", "dt0s16."}, class: dotted, min: 80},

	// Links that are as good as the account's key.
	{id: "signed-url", prefixes: []string{"x-amz-signature=", "x-goog-signature=", "&sig=", "?sig="}, class: urlValue, min: 32, fold: true, keep: true, anywhere: true},
}

// azureSecrets: a digit, then Q~, in the middle of a client secret.
var azureSecrets = []string{"0Q~", "1Q~", "2Q~", "3Q~", "4Q~", "5Q~", "6Q~", "7Q~", "8Q~", "9Q~"}

// twilioKeys: SK and 32 digits of hex.
var twilioKeys = []string{
	"SK0", "SK1", "SK2", "SK3", "SK4", "SK5", "SK6", "SK7", "SK8", "SK9", "SKa", "SKb", "SKc", "SKd", "SKe", "SKf",
}
