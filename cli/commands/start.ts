/** `meshnode start`: runs a node until it is told to stop. */
import { configSource, createMeshNode, type MeshNode } from '../../node/index.ts';
import { CliError, type Command, configOf, EXIT, type Invocation } from '../command.ts';
import { passphraseAsker } from '../passphrase-input.ts';
import { JsonView, PrettyView } from '../start-view.ts';

const SIGNAL_BASE = 128;
const SIGNAL_NUMBERS: Readonly<Record<string, number>> = { SIGHUP: 1, SIGINT: 2, SIGTERM: 15 };

export const start: Command = {
  name: 'start',
  positionals: '',
  maxPositionals: 0,
  summary: 'run a node: join or form the mesh',
  settings: null,
  extra: [],
  async run(invocation) {
    const { terminal } = invocation;
    // --json is what every command calls it; here it means the event format.
    const flags = invocation.json ? { ...invocation.flags, 'log-format': ['json'] } : invocation.flags;
    const { config } = configOf({ ...invocation, flags });
    const view = config.log.format === 'json' ? new JsonView(terminal) : new PrettyView(terminal);
    const node = await createMeshNode(
      config,
      configSource({ ...invocation.machine, flags }),
      passphraseAsker(terminal),
    );
    node.onEvent((event) => view.show(event));
    process.on('uncaughtException', surviveStreamRace);
    return await runUntilSignal(node, invocation);
  },
};

/** Runs the node from start to stop. The first signal drains, a second one ends the process at once. */
async function runUntilSignal(node: MeshNode, invocation: Invocation): Promise<number> {
  const asked = Promise.withResolvers<void>();
  const unlisten = invocation.signals.listen((signal, count) => {
    if (count > 1) process.exit(SIGNAL_BASE + (SIGNAL_NUMBERS[signal] ?? 0));
    if (invocation.terminal.isTty) invocation.terminal.line('\ndraining… (press again to stop now)');
    asked.resolve();
  });
  try {
    const started = node.start();
    // Asked to stop while starting: the stop below ends the start, whose failure is then no news.
    await Promise.race([started, asked.promise.then(() => started.catch(() => {}))]);
    await asked.promise;
  } catch (error) {
    throw new CliError(error instanceof Error ? error.message : String(error));
  } finally {
    await node.stop();
    unlisten();
  }
  return EXIT.ok;
}

/**
 * A stream that closes while its last bytes drain makes libp2p throw from an event listener, where nobody can catch it
 * (libp2p/js-libp2p#3415). The stream is gone either way; a node must not go with it. Anything else is a bug and fatal.
 */
function surviveStreamRace(error: Error): void {
  if (error.name === 'StreamStateError') return;
  process.stderr.write(`meshnode: ${error.stack ?? error.message}\n`);
  process.exit(EXIT.failure);
}
