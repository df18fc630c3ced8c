/** One streamed chat over a kept-alive connection, with the time of every event, milliseconds. */
import http from 'node:http';

export interface TimedChat {
  /** From sending the request to the first text. */
  readonly firstTextMs: number;
  /** From sending the request to the end of the answer. */
  readonly totalMs: number;
  /** Events that carried text. */
  readonly chunks: number;
  readonly text: string;
}

export interface ChatQuestion {
  readonly api: string;
  readonly model: string;
  readonly prompt: string;
  readonly maxTokens: number;
  readonly agent: http.Agent;
}

/** Reads the stream by hand: a client library would add its own time to what is measured. */
export function timedChat({ api, model, prompt, maxTokens, agent }: ChatQuestion): Promise<TimedChat> {
  const messages = [{ role: 'user', content: prompt }];
  const body = JSON.stringify({ model, temperature: 0, stream: true, max_tokens: maxTokens, messages });
  const headers = { 'content-type': 'application/json', 'content-length': Buffer.byteLength(body) };
  return new Promise((resolve, reject) => {
    const startedAt = performance.now();
    const request = http.request(`${api}/v1/chat/completions`, { method: 'POST', agent, headers }, (response) => {
      let firstTextMs = 0;
      let chunks = 0;
      let text = '';
      let rest = '';
      response.setEncoding('utf8').on('data', (data: string) => {
        const events = (rest + data).split('\n\n');
        rest = events.pop() ?? '';
        for (const event of events) {
          const piece = contentOf(event);
          if (piece === '') continue;
          if (chunks === 0) firstTextMs = performance.now() - startedAt;
          chunks += 1;
          text += piece;
        }
      });
      response.on('error', reject);
      response.on('end', () => {
        const totalMs = performance.now() - startedAt;
        if (response.statusCode === 200 && chunks > 0) resolve({ firstTextMs, totalMs, chunks, text });
        else reject(new Error(`status ${response.statusCode}: ${rest}`));
      });
    });
    request.on('error', reject);
    request.end(body);
  });
}

function contentOf(event: string): string {
  if (!event.startsWith('data: {')) return '';
  const chunk = JSON.parse(event.slice(6)) as {
    choices?: { delta?: { content?: string } }[];
    error?: { message: string };
  };
  if (chunk.error !== undefined) throw new Error(chunk.error.message);
  return chunk.choices?.[0]?.delta?.content ?? '';
}
