/**
 * A whole node whose scripted engine also takes orders from the prompt: `hang 12` gives twelve tokens and then nothing more
 * (but only to a request that is not resumed), `busy` refuses. Started like the real one (flags of `meshnode start`, values
 * after a space). The environment says SCRIPTED_MODELS (ids, comma-separated; may be empty) and SCRIPTED_DELAY_MS.
 */
import { homedir } from 'node:os';
import { parseArgs } from 'node:util';
import { MeshError } from '../../node/common/errors.ts';
import { silentLogger } from '../../node/common/logger.ts';
import { loadConfig } from '../../node/config.ts';
import { MeshNode } from '../../node/mesh-node.ts';
import type { InferenceEvent, InferenceRequest } from '../../protocols/inference/events.ts';
import { ScriptedEngine } from './scripted-engine.ts';

class OrderedEngine extends ScriptedEngine {
  override async *infer(request: InferenceRequest, options: { signal: AbortSignal }): AsyncGenerator<InferenceEvent> {
    const { hangAt, busy } = orderOf(request);
    if (busy) throw new MeshError('overloaded', 'All slots are taken (scripted)', { retryAfterMs: 1000 });
    let given = 0;
    for await (const event of super.infer(request, options)) {
      if (given === hangAt) await cancelled(options.signal);
      yield event;
      if (event.type === 'chunk') given += event.tokens.length;
    }
  }
}

function cancelled(signal: AbortSignal): Promise<never> {
  return new Promise((_, reject) => {
    const end = (): void => reject(new MeshError('client_closed', 'cancelled'));
    if (signal.aborted) end();
    signal.addEventListener('abort', end, { once: true });
  });
}

function orderOf({ body, resume }: InferenceRequest): { hangAt: number | null; busy: boolean } {
  const { messages } = JSON.parse(new TextDecoder().decode(body)) as { messages?: { content: unknown }[] };
  const prompt = String(messages?.[0]?.content ?? '');
  const hang = resume === undefined ? /^hang (\d+)/.exec(prompt)?.[1] : undefined;
  return { hangAt: hang === undefined ? null : Number(hang), busy: prompt.startsWith('busy') };
}

const text = { type: 'string', multiple: true } as const;
const options = { 'data-dir': text, port: text, name: text, 'log-format': text, listen: text };
const { values } = parseArgs({ args: process.argv.slice(3), options });
const flags = Object.fromEntries(Object.entries(values).map(([name, given]) => [name, given ?? []]));
const { config } = loadConfig({ flags, env: {}, cwd: process.cwd(), home: homedir(), hostName: 'scripted' });
const models = (process.env['SCRIPTED_MODELS'] ?? '').split(',').filter((id) => id !== '');
const tokenDelayMs = Number(process.env['SCRIPTED_DELAY_MS'] ?? 0);
const node = new MeshNode(config, {
  logger: silentLogger,
  engine: ({ fingerprint }) => new OrderedEngine({ fingerprint, models, tokenDelayMs }),
});
node.onEvent((event) => process.stdout.write(`${JSON.stringify(event)}\n`));
for (const signal of ['SIGTERM', 'SIGINT'] as const)
  process.once(signal, () => void node.stop().then(() => process.exit(0)));
await node.start();
