/** The interactive side of `meshnode chat`: one line asks, Ctrl-C stops the answer. */
import { createInterface, type Interface } from 'node:readline';
import type { ChatSession } from './chat-session.ts';
import { EXIT } from './command.ts';
import type { NodeApi } from './node-api.ts';
import { clean, cleanLines, type Terminal } from './terminal.ts';

const HELP = [
  '/model [NAME]  list the models, or change to one',
  '/clear         forget this conversation',
  '/bye           leave (also Ctrl-D)',
  'Ctrl-C stops an answer; at an empty prompt, twice leaves.',
];

/** Reads lines until the user leaves. */
export class ChatLoop {
  readonly #session: ChatSession;
  readonly #api: NodeApi;
  readonly #terminal: Terminal;
  #answering: AbortController | null = null;
  #interrupted = false;

  constructor(session: ChatSession, api: NodeApi, terminal: Terminal) {
    this.#session = session;
    this.#api = api;
    this.#terminal = terminal;
  }

  /** @returns the exit code. */
  async run(): Promise<number> {
    this.#terminal.line(
      `Chatting with ${this.#terminal.paint('bold', clean(this.#session.model))}. /help lists commands.`,
    );
    const input = createInterface({ input: process.stdin, output: process.stdout, prompt: '> ', terminal: true });
    input.on('SIGINT', () => this.#interrupt(input));
    input.on('close', () => this.#answering?.abort());
    input.prompt();
    for await (const line of input) {
      this.#interrupted = false;
      if ((await this.#handle(line.trim())) === 'leave') break;
      input.prompt();
    }
    input.close();
    this.#terminal.line('');
    return EXIT.ok;
  }

  #interrupt(input: Interface): void {
    if (this.#answering !== null) {
      this.#answering.abort();
      return;
    }
    if (input.line === '' && this.#interrupted) {
      input.close();
      return;
    }
    this.#interrupted = true;
    if (input.line === '') this.#terminal.write('\n(Ctrl-C again, or Ctrl-D, leaves)');
    this.#terminal.write('\n');
    // Ctrl-U and Ctrl-K: what was typed so far is dropped, on both sides of the cursor.
    input.write(null, { ctrl: true, name: 'u' });
    input.write(null, { ctrl: true, name: 'k' });
    input.prompt();
  }

  async #handle(line: string): Promise<'leave' | 'stay'> {
    const [word = '', argument] = line.split(/\s+/, 2);
    if (line === '') return 'stay';
    if (!line.startsWith('/')) await this.#ask(line);
    else if (word === '/bye' || word === '/exit' || word === '/quit') return 'leave';
    else if (word === '/clear') this.#session.clear();
    else if (word === '/model') await this.#model(argument);
    else for (const row of HELP) this.#terminal.line(row);
    return 'stay';
  }

  async #ask(question: string): Promise<void> {
    const controller = new AbortController();
    this.#answering = controller;
    try {
      await this.#session.ask(question, controller.signal, (text) => this.#terminal.write(cleanLines(text)));
      this.#terminal.line(controller.signal.aborted ? this.#terminal.paint('dim', ' (stopped)') : '');
    } catch (error) {
      this.#complain(error);
    } finally {
      this.#answering = null;
    }
  }

  async #model(named: string | undefined): Promise<void> {
    try {
      const ids = await this.#api.modelIds();
      if (named !== undefined && ids.includes(named)) {
        this.#session.model = named;
        this.#terminal.line(`Now with ${clean(named)}.`);
        return;
      }
      if (named !== undefined) this.#terminal.line(`There is no model "${clean(named)}". There are:`);
      for (const id of ids) this.#terminal.line(`${id === this.#session.model ? '*' : ' '} ${clean(id)}`);
    } catch (error) {
      this.#complain(error);
    }
  }

  #complain(error: unknown): void {
    const message = error instanceof Error ? error.message : String(error);
    this.#terminal.line(this.#terminal.paint('red', `\n${clean(message)}`));
  }
}
