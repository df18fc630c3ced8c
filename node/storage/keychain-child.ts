/** Entry of the process that asks the keychain. The native calls block their thread, so they have one of their own. */
import { isMainThread, parentPort, Worker } from 'node:worker_threads';
import type { KeychainAnswer, KeychainRequest } from './keychain.ts';

if (isMainThread) relay();
else
  parentPort?.on(
    'message',
    (request: KeychainRequest) => void answer(request).then((it) => parentPort?.postMessage(it)),
  );

function relay(): void {
  // Not process.exit(): it waits for a thread that hangs in a native call.
  const die = (): void => {
    process.kill(process.pid, 'SIGKILL');
  };
  process.on('disconnect', die);
  if (process.connected !== true) die();
  const worker = new Worker(new URL(import.meta.url));
  const say = (answer: KeychainAnswer): void => {
    process.send?.(answer, undefined, undefined, () => {});
  };
  worker.on('message', say);
  worker.on('error', () => say({ problem: 'the keychain library failed' }));
  process.on('message', (request) => worker.postMessage(request));
}

async function answer({ op, service, account, secret }: KeychainRequest): Promise<KeychainAnswer> {
  try {
    const { Entry } = await import('@napi-rs/keyring');
    // Without a Secret Service the library would turn to the kernel's keyring, which a restart of the machine empties.
    const entry = new Entry(service, account, { linux: { store: 'secret-service' } });
    if (op === 'get') return { secret: entry.getPassword() };
    if (op === 'delete') entry.deletePassword();
    else entry.setPassword(secret ?? '');
    return { secret: null };
  } catch (error) {
    return { problem: problemOf(error) };
  }
}

/** The library's words, without what only its authors need. */
function problemOf(error: unknown): string {
  const { message = 'unknown', code } = error as NodeJS.ErrnoException;
  if (code === 'ERR_MODULE_NOT_FOUND' || code === 'MODULE_NOT_FOUND') return 'there is no library for this system';
  if (message.includes('DBUS_SESSION_BUS_ADDRESS')) return 'no desktop session (no D-Bus session bus)';
  if (/prompt was dismissed|locked/i.test(message)) return 'it is locked';
  return message.replace(/^(Platform failure|Couldn't access platform storage): /, '');
}
