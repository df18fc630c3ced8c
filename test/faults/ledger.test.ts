import assert from 'node:assert/strict';
import http from 'node:http';
import type { AddressInfo } from 'node:net';
import { describe, test } from 'node:test';
import { judge, Ledger, type Question, type Receipt, scriptedGolden, type Verdict } from '../support/ledger.ts';
import { askForReceipt } from '../support/ledger-client.ts';

const QUESTION: Question = {
  ...{ id: 'q', model: 'scripted', prompt: 'count', seed: 5, temperature: 0, maxTokens: 4 },
  ...{ stream: true, client: 'http' },
};
const GOLDEN = scriptedGolden(QUESTION);
const WORDS = GOLDEN.text.match(/\w+ /g) ?? [];

const WHOLE: Receipt = {
  ...{ id: 'q', status: 200, text: GOLDEN.text, finish: 'length', done: true, completionTokens: 4, error: null },
  ...{ broken: null, timedOut: false, left: false, requestId: null, node: null, attempts: 1, resumed: 0, nodes: [] },
  ...{ sentAtMs: 0, endedAtMs: 1, textAtMs: [] },
};
const CUT = { finish: null, done: false, completionTokens: null };
const LOST = { code: 'peer_lost', message: 'lost', retryAfterS: null };
const words = (...indices: number[]): { text: string } => ({ text: indices.map((index) => WORDS[index]).join('') });

describe('the verdict on an answer', () => {
  const cases: readonly [what: string, change: Partial<Receipt>, verdict: Verdict, detail?: RegExp][] = [
    ['a whole one', {}, 'completed'],
    ['a clean error in the middle', { ...CUT, ...words(0, 1), error: LOST }, 'error', /peer_lost/],
    ['a refusal', { ...CUT, text: '', status: 503, error: LOST }, 'error'],
    ['a client that left', { ...CUT, ...words(0), left: true, broken: 'aborted' }, 'left'],
    ['a broken connection', { ...CUT, ...words(0), broken: 'reset' }, 'broken'],
    ['one that just ends', { ...CUT, ...words(0, 1) }, 'truncated'],
    ['one that ends with [DONE] but no finish reason', { finish: null }, 'truncated'],
    ['one without [DONE]', { done: false }, 'truncated'],
    ['one that claims to be whole', words(0, 1, 2), 'truncated', /look whole/],
    ['one with an error and [DONE]', { error: LOST }, 'truncated'],
    ['a repeated token', words(0, 1, 1, 2, 3), 'wrong-text', /repeated/],
    ['a token left out', words(0, 2, 3), 'wrong-text', /gap/],
    ['a foreign token', { text: `${WORDS[0]}zzzzzz ` }, 'wrong-text', /foreign/],
    ['a foreign token before an error', { ...CUT, text: 'zz', error: LOST }, 'wrong-text'],
    ['one more token than there are', { text: `${GOLDEN.text}${WORDS[0]}` }, 'wrong-text'],
    ['another finish reason', { finish: 'stop' }, 'wrong-text'],
    ['tokens counted twice', { completionTokens: 6 }, 'wrong-usage'],
    ['no usage', { completionTokens: null }, 'wrong-usage'],
    ['one that never ends', { ...CUT, ...words(0), timedOut: true }, 'no-end'],
  ];
  for (const [what, change, verdict, detail = /(?:)/] of cases) {
    test(`${what}: ${verdict}`, () => {
      const judgement = judge({ ...WHOLE, ...change }, GOLDEN);
      assert.equal(judgement.verdict, verdict, judgement.detail);
      assert.match(judgement.detail, detail);
    });
  }

  test('the sums of a ledger add up to what was sent', () => {
    const ledger = new Ledger();
    for (const [, change] of cases) ledger.enter({ ...WHOLE, ...change }, GOLDEN);
    const { sent, completed, errors, left, broken, violations } = ledger.totals();
    assert.deepEqual([sent, completed + errors + left + broken + violations], [cases.length, cases.length]);
    assert.equal(ledger.complaints().length, cases.length - completed - left);
  });
});

describe('the client of the ledger', () => {
  const chunk = (text: string): string => `data: ${JSON.stringify({ choices: [{ delta: { content: text } }] })}\n\n`;

  async function verdictOn(answer: (response: http.ServerResponse) => void, client: Question['client']) {
    const server = http.createServer((_request, response) => {
      response.writeHead(200, { 'content-type': 'text/event-stream' });
      answer(response);
    });
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
    const api = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
    try {
      const { signal } = new AbortController();
      return judge(await askForReceipt({ ...QUESTION, client, patienceMs: 5000 }, { api, signal }), GOLDEN).verdict;
    } finally {
      server.closeAllConnections();
      server.close();
    }
  }

  for (const client of ['http', 'openai'] as const) {
    test(`an answer that is cut without a word is seen as such by ${client}`, async () => {
      assert.equal(await verdictOn((response) => response.end(chunk(WORDS[0] ?? '')), client), 'truncated');
    });

    test(`a connection that is torn down is seen as such by ${client}`, async () => {
      const tear = (response: http.ServerResponse): void => {
        response.write(chunk(WORDS[0] ?? ''), () => response.destroy());
      };
      assert.equal(await verdictOn(tear, client), 'broken');
    });

    test(`an error event is seen as such by ${client}`, async () => {
      const error = `data: ${JSON.stringify({ error: { code: 'peer_lost', message: 'lost', type: 'server_error' } })}\n\n`;
      assert.equal(await verdictOn((response) => response.end(chunk(WORDS[0] ?? '') + error), client), 'error');
    });
  }
});
