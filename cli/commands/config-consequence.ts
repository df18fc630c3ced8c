/** What a change of the config file means for the node that runs now. */
import { setTimeout as delay } from 'node:timers/promises';
import { type ConfigEdit, settingValue } from '../../node/index.ts';
import { configOf, type Invocation } from '../command.ts';
import { type NodeApi, tryConnect } from '../node-api.ts';

/** The node looks at its file every second. */
const PATIENCE_MS = 3_000;
const STEP_MS = 100;

export interface Consequence {
  /** `now`: the running node has taken it over; `start`: it counts from the next start on; `overridden`: it does not. */
  readonly effect: 'now' | 'start' | 'overridden';
  readonly note: string;
}

/** Waits up to 3 s for the running node to follow its file. */
export async function editConsequence(invocation: Invocation, edit: ConfigEdit): Promise<Consequence> {
  if (edit.overriddenBy !== null) {
    return { effect: 'overridden', note: `${edit.overriddenBy} is set here and wins over the file.` };
  }
  const api = await tryConnect(invocation);
  if (api === null) return { effect: 'start', note: 'It counts from the next start on: no node is running here.' };
  if (!edit.live) return { effect: 'start', note: 'The running node takes it over when it is started again.' };
  const wanted = settingValue(configOf(invocation), edit.key);
  // No route shows tables such as models.aliases.
  if (typeof wanted === 'object')
    return { effect: 'now', note: 'The running node takes it over within a second, unless a flag of its own wins.' };
  if (await follows(api, edit.key.slice(edit.key.lastIndexOf('.') + 1), wanted))
    return { effect: 'now', note: 'The running node has taken it over.' };
  const why = 'a flag or variable that wins, or another config file';
  return { effect: 'overridden', note: `The running node did not take it over: it was started with ${why}.` };
}

async function follows(api: NodeApi, name: string, wanted: unknown): Promise<boolean> {
  for (let waitedMs = 0; ; waitedMs += STEP_MS) {
    const now = await api.read<Record<string, unknown>>('/api/v1/config/load-balancing');
    if (now[name] === wanted) return true;
    if (waitedMs >= PATIENCE_MS) return false;
    await delay(STEP_MS);
  }
}
