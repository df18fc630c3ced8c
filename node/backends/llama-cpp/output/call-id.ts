import { createHash } from 'node:crypto';

const ID_CHARS = 24;

/** The id of a choice's tool call: the same wherever the tokens are replayed with the same seed. */
export function callId(seed: string, index: number): string {
  return `call_${createHash('sha256').update(`${seed}:${index}`).digest('hex').slice(0, ID_CHARS)}`;
}
