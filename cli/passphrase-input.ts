/** The passphrase of an encrypted store from a person, who does not see it typed, or from a pipe. */
import { createInterface } from 'node:readline';
import { Writable } from 'node:stream';
import { checkedPassphrase, type PassphraseSource } from '../node/index.ts';
import { CliError, EXIT, type Invocation } from './command.ts';
import { clean, type Terminal } from './terminal.ts';

const QUESTIONS = {
  open: 'Passphrase of the keys of this node (it is not shown):',
  new: 'A passphrase for the keys of this node (it is not shown):',
  changed: 'The new passphrase for the keys of this node (it is not shown):',
} as const;

/**
 * Asks at a terminal, a new one twice. With `fromPipe` each question takes one line of standard input where that is no
 * terminal; else nobody can be asked there: undefined.
 */
export function passphraseAsker(
  terminal: Terminal,
  { fromPipe = false }: { readonly fromPipe?: boolean } = {},
): PassphraseSource | undefined {
  if (process.stdin.isTTY === true) return (purpose) => askPerson(terminal, purpose);
  if (!fromPipe) return undefined;
  let lines: AsyncIterator<string> | null = null;
  return async () => {
    lines ??= createInterface({ input: process.stdin })[Symbol.asyncIterator]();
    const { value, done } = await lines.next();
    const none = 'standard input has no passphrase: give one a line, or --passphrase-file FILE';
    if (done === true) throw new CliError(none, EXIT.usage);
    return checkedPassphrase(value, 'a line of standard input');
  };
}

/** How a command reaches the store of keys: what it has to say goes to the person who runs it. */
export function secretsAccess({ terminal }: Invocation): {
  readonly warn: (message: string) => void;
  readonly passphrase: PassphraseSource | undefined;
} {
  return { warn: (message) => terminal.errorLine(clean(message)), passphrase: passphraseAsker(terminal) };
}

async function askPerson(terminal: Terminal, purpose: keyof typeof QUESTIONS): Promise<string> {
  const passphrase = await hiddenLine(terminal, QUESTIONS[purpose]);
  if (purpose === 'open') return passphrase;
  checkedPassphrase(passphrase, 'what you typed');
  if ((await hiddenLine(terminal, 'Once more:')) === passphrase) return passphrase;
  throw new CliError('the two passphrases differ: nothing was changed', EXIT.usage);
}

async function hiddenLine(terminal: Terminal, question: string): Promise<string> {
  terminal.errorLine(question);
  const hidden = new Writable({ write: (_chunk, _encoding, done) => done() });
  const lines = createInterface({ input: process.stdin, output: hidden, terminal: true });
  try {
    for await (const line of lines) return line;
    throw new CliError('no passphrase was typed', EXIT.usage);
  } finally {
    lines.close();
    process.stdin.pause();
  }
}
