import { expect, type ConsoleMessage, type Page } from '@playwright/test';

/** Watches a page for what must never happen: errors, policy violations, requests to elsewhere. */
export class Watch {
  readonly problems: string[] = [];

  constructor(page: Page, origin: string) {
    page.on('console', (message) => this.console(message));
    page.on('pageerror', (error) => this.problems.push(`page error: ${error.message}`));
    page.on('request', (request) => {
      const url = new URL(request.url());
      if (url.protocol !== 'data:' && url.protocol !== 'blob:' && url.origin !== origin) this.problems.push(`request to ${url.origin}`);
    });
  }

  private console(message: ConsoleMessage): void {
    const text = message.text();
    // The browser itself logs answers of 4xx and 5xx; tests that cause one say so by `expected`.
    if (this.expected.some((pattern) => pattern.test(text))) return;
    if (message.type() === 'error' || /content security policy|trusted ?type/i.test(text)) this.problems.push(`console: ${text}`);
  }

  expected: RegExp[] = [];

  none(): void {
    expect(this.problems).toEqual([]);
  }
}

export async function signIn(page: Page, apiKey: string): Promise<void> {
  await page.getByLabel('API key').fill(apiKey);
  await page.getByRole('button', { name: 'Sign in' }).click();
}

/** The messages on screen, top to bottom. */
export async function messages(page: Page): Promise<string[]> {
  return page.locator('.log-row').evaluateAll((rows) =>
    rows
      .map((row) => ({ top: row.getBoundingClientRect().top, text: row.querySelector('.log-message')?.textContent ?? '' }))
      .sort((a, b) => a.top - b.top)
      .map(({ text }) => text),
  );
}

/** The largest row index on screen: grows while the view follows new lines. */
export async function lastIndex(page: Page): Promise<number> {
  return page.locator('.log-row').evaluateAll((rows) => Math.max(-1, ...rows.map((row) => Number((row as HTMLElement).dataset.index))));
}

export const fromEnd = (page: Page): Promise<number> =>
  page.getByTestId('log-list').evaluate((list) => list.scrollHeight - list.clientHeight - list.scrollTop);
