/** A key from standard input: never from the command line, which every user of the machine can read. */
import { createInterface } from 'node:readline';
import { Writable } from 'node:stream';
import { CliError, EXIT } from './command.ts';
import type { Terminal } from './terminal.ts';

const MAX_CHARS = 4_096;

/**
 * The first line of standard input; a person is asked for it, and does not see it typed.
 *
 * @throws CliError (usage) when it is no key; the message does not quote it.
 */
export async function readKey(terminal: Terminal, flag = '--key-stdin'): Promise<string> {
  const isPerson = process.stdin.isTTY === true;
  if (isPerson) terminal.errorLine('Paste the key and press Enter (it is not shown):');
  const hidden = new Writable({ write: (_chunk, _encoding, done) => done() });
  const lines = createInterface({ input: process.stdin, output: hidden, terminal: isPerson });
  let line: string | undefined;
  for await (const first of lines) {
    line = first;
    break;
  }
  lines.close();
  process.stdin.pause();
  const key = (line ?? '').trim();
  if (/^[\x21-\x7e]+$/.test(key) && key.length <= MAX_CHARS) return key;
  const why = key === '' ? 'there was none on standard input' : 'it must be visible ASCII without spaces';
  throw new CliError(`${flag}: ${why}; for example: printf %s "$KEY" | meshnode …`, EXIT.usage);
}
