// What the published package's theazo/sandbox does inside a sandbox: it posts
// JSON to agentd, with the agent and session of its environment in every body,
// no credentials, and no look at the answer.

export interface Cost {
  amount: number;
  currency: string;
}

export interface Span {
  end(attributes?: Record<string, unknown>): Promise<void>;
  fail(error: string): Promise<void>;
}

export class Sandbox {
  readonly #endpoint = process.env['THEAZO_ENDPOINT'] ?? '';
  readonly #agentId = process.env['THEAZO_AGENT_ID'] ?? '';
  readonly #sessionId = process.env['THEAZO_SESSION_ID'] ?? '';
  // The answers' statuses: the package passes over them, the tests do not.
  readonly statuses: number[] = [];

  async #post(path: string, body: Record<string, unknown>): Promise<void> {
    try {
      const response = await fetch(`${this.#endpoint}/v1/sandbox/${path}`, {
        method: 'POST',
        headers: { 'Content-Type': 'application/json' },
        body: JSON.stringify({ agentId: this.#agentId, sessionId: this.#sessionId, ...body }),
      });
      this.statuses.push(response.status);
      await response.arrayBuffer();
    } catch {
      this.statuses.push(0);
    }
  }

  log(level: string, message: string, metadata?: Record<string, unknown>): Promise<void> {
    return this.#post('log', { level, message, metadata, timestamp: new Date().toISOString() });
  }

  model(model: string, inputTokens: number, outputTokens: number, cost?: Cost): Promise<void> {
    return this.#post('model', { model, inputTokens, outputTokens, cost, timestamp: new Date().toISOString() });
  }

  span(name: string): Span {
    const start = new Date();
    const end = (more: Record<string, unknown>): Promise<void> => {
      const now = new Date();
      return this.#post('span', {
        name, startTime: start.toISOString(), endTime: now.toISOString(), durationMs: now.getTime() - start.getTime(), ...more,
      });
    };
    return {
      end: (attributes) => end({ status: 'completed', attributes }),
      fail: (error) => end({ status: 'failed', error }),
    };
  }

  progress(percentage: number, message: string): Promise<void> {
    return this.#post('progress', { percentage, message, timestamp: new Date().toISOString() });
  }

  complete(output: unknown, artifacts: unknown[] = []): Promise<void> {
    return this.#post('complete', { output, artifacts, timestamp: new Date().toISOString() });
  }
}
