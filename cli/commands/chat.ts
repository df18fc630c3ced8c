/** `meshnode chat [MODEL]`: talk to a model, in a terminal or through pipes. */
import { text as readAll } from 'node:stream/consumers';
import { ChatLoop } from '../chat-loop.ts';
import { ChatSession } from '../chat-session.ts';
import { CliError, type Command, EXIT, type Invocation } from '../command.ts';
import { connect, type NodeApi } from '../node-api.ts';
import { cleanLines } from '../terminal.ts';

export const chat: Command = {
  name: 'chat',
  positionals: '[MODEL]',
  maxPositionals: 1,
  summary: 'talk to a model; reads stdin when it is no terminal',
  settings: ['data-dir', 'api-key-file'],
  extra: [{ flag: 'message', argument: 'TEXT', help: 'ask this one thing and print the answer' }],
  async run(invocation) {
    const api = await connect(invocation);
    const session = new ChatSession(api, await chooseModel(api, invocation.positionals[0]));
    const message = invocation.flags['message']?.at(-1);
    const interactive = message === undefined && process.stdin.isTTY === true && !invocation.json;
    if (interactive) return await new ChatLoop(session, api, invocation.terminal).run();
    return await askOnce(session, message ?? (await readAll(process.stdin)), invocation);
  },
};

/** The named model, else the first that the node lists. */
async function chooseModel(api: NodeApi, named: string | undefined): Promise<string> {
  const ids = await api.modelIds();
  if (named !== undefined) {
    if (ids.includes(named)) return named;
    throw new CliError(`there is no model "${named}" in the mesh: ${ids.join(', ') || 'there are none yet'}`);
  }
  const [first] = ids;
  if (first === undefined) throw new CliError('there are no models in the mesh yet: see meshnode models');
  return first;
}

async function askOnce(session: ChatSession, question: string, invocation: Invocation): Promise<number> {
  const { terminal } = invocation;
  if (question.trim() === '')
    throw new CliError('nothing to ask: give --message TEXT or a question on stdin', EXIT.usage);
  const controller = new AbortController();
  const unlisten = invocation.signals.listen(() => controller.abort());
  try {
    const answer = await session.ask(question.trimEnd(), controller.signal, (text) => {
      if (!invocation.json) terminal.write(terminal.isTty ? cleanLines(text) : text);
    });
    if (controller.signal.aborted) return 130;
    if (invocation.json) terminal.json({ model: session.model, answer });
    else if (!answer.endsWith('\n')) terminal.line('');
    return EXIT.ok;
  } finally {
    unlisten();
  }
}
