/**
 * A whole node with a scripted engine, started like the real one (flags of `meshnode start`, values after a space).
 * The environment says SCRIPTED_MODELS (ids, comma-separated; may be empty), SCRIPTED_DELAY_MS, SCRIPTED_TEXT_LAG
 * (tokens) and SCRIPTED_FAULT: `KIND@TOKENS` or `KIND@TOKENSxTIMES`, for example `kill@5` or `engine_failed@3x1`.
 */
import { homedir } from 'node:os';
import { silentLogger } from '../../node/common/logger.ts';
import { loadConfig } from '../../node/config.ts';
import { MeshNode } from '../../node/mesh-node.ts';
import { ScriptedEngine, type ScriptedFault } from './scripted-engine.ts';

const flags: Record<string, string[]> = {};
const words = process.argv.slice(2).filter((word) => word !== 'start');
for (let i = 0; i < words.length; i++) {
  const name = (words[i] ?? '').replace(/^--/, '');
  const next = words[i + 1];
  const isSwitch = next === undefined || next.startsWith('--');
  flags[name] = [...(flags[name] ?? []), isSwitch ? 'true' : next];
  if (!isSwitch) i += 1;
}

const { config } = loadConfig({ flags, env: {}, cwd: process.cwd(), home: homedir(), hostName: 'scripted' });
const models = (process.env['SCRIPTED_MODELS'] ?? '').split(',').filter((id) => id !== '');
const tokenDelayMs = Number(process.env['SCRIPTED_DELAY_MS'] ?? 0);
const textLag = Number(process.env['SCRIPTED_TEXT_LAG'] ?? 0);
const node = new MeshNode(config, {
  logger: silentLogger,
  engine: ({ fingerprint }) => {
    const engine = new ScriptedEngine({ fingerprint, models, tokenDelayMs, textLag });
    engine.fault = faultOf(process.env['SCRIPTED_FAULT'] ?? '');
    return engine;
  },
});
node.onEvent((event) => process.stdout.write(`${JSON.stringify(event)}\n`));
for (const signal of ['SIGTERM', 'SIGINT'] as const)
  process.once(signal, () => void node.stop().then(() => process.exit(0)));
await node.start();

function faultOf(text: string): ScriptedFault | null {
  if (text === '') return null;
  const [, kind, afterTokens, times] = /^(engine_failed|hang|kill|other_prompt)@(\d+)(?:x(\d+))?$/.exec(text) ?? [];
  if (kind === undefined) throw new Error(`SCRIPTED_FAULT=${text} is none`);
  return {
    kind: kind as ScriptedFault['kind'],
    afterTokens: Number(afterTokens),
    times: times === undefined ? Number.POSITIVE_INFINITY : Number(times),
  };
}
