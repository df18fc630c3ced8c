/**
 * The official client in a process of its own, so that it can run on another machine of a test's LAN.
 * argv[2]: JSON `{ api, path }` for a GET, or `{ api, model, prompt, stream }` for a chat. Prints one JSON document.
 */
import OpenAI from 'openai';

interface Ask {
  readonly api: string;
  readonly path?: string;
  readonly model?: string;
  readonly prompt?: string;
  readonly stream?: boolean;
}

/** What a chat came to: its text and end, and which node gave it; or the error's class name, status and code. */
export interface ChatOutcome {
  readonly text: string;
  readonly finish: string | null;
  readonly node: string | null;
  readonly chunks: number;
  readonly error: { readonly name: string; readonly status: number | null; readonly code: string | null } | null;
}

async function chat({ api, model = '', prompt = '', stream = false }: Ask): Promise<ChatOutcome> {
  const client = new OpenAI({ baseURL: `${api}/v1`, apiKey: 'none', maxRetries: 0, timeout: 60_000 });
  const request = { model, temperature: 0, max_tokens: 64, messages: [{ role: 'user' as const, content: prompt }] };
  const outcome = { text: '', finish: null as string | null, node: null as string | null, chunks: 0 };
  try {
    if (!stream) {
      const { data, response } = await client.chat.completions.create(request).withResponse();
      const choice = data.choices[0];
      const node = response.headers.get('x-meshnode-node');
      return {
        ...outcome,
        text: choice?.message.content ?? '',
        finish: choice?.finish_reason ?? null,
        node,
        error: null,
      };
    }
    const { data, response } = await client.chat.completions.create({ ...request, stream: true }).withResponse();
    outcome.node = response.headers.get('x-meshnode-node');
    for await (const chunk of data) {
      outcome.chunks += 1;
      outcome.text += chunk.choices[0]?.delta.content ?? '';
      outcome.finish = chunk.choices[0]?.finish_reason ?? outcome.finish;
    }
    return { ...outcome, error: null };
  } catch (thrown) {
    const { name, status = null, code = null } = thrown as { name: string; status?: number; code?: string };
    return { ...outcome, error: { name, status, code } };
  }
}

const ask = JSON.parse(process.argv[2] ?? '{}') as Ask;
const answer = ask.path === undefined ? await chat(ask) : await (await fetch(ask.api + ask.path)).json();
process.stdout.write(JSON.stringify(answer));
