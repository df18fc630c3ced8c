/** Entry of the forked engine process: one model, one channel. It dies with the channel, and a crash kills only it. */
import { toMeshError } from '../../../common/errors.ts';
import { BEAT_PERIOD_MS, type FromChild, type ToChild } from '../ipc.ts';
import { EngineHost } from './engine-host.ts';
import { loadNativeModel } from './native-model.ts';

const send = (message: FromChild, sent: () => void = () => {}): void => {
  // A channel that closes meanwhile is the end of this process, which the listener below sees to.
  process.send?.(message, undefined, undefined, sent);
};
const host = new EngineHost({ load: loadNativeModel, send, now: () => performance.now() });

// Not process.exit(): it would wait for the decode on the native threads, and may crash in it. There is nothing to save.
const die = (): void => {
  process.kill(process.pid, 'SIGKILL');
};
process.on('disconnect', die);
// The node may have gone while the imports above were loaded, before anybody listened.
if (process.connected !== true) die();
// The node decides when its engine stops; a Ctrl-C in the terminal reaches the whole process group.
process.on('SIGINT', () => {});
process.on('SIGTERM', () => {});

process.on('message', (message: ToChild) => {
  host.receive(message).catch((thrown: unknown) => {
    const { code, message } = toMeshError(thrown, 'engine_failed');
    send({ type: 'failed', code, message }, () => process.exit(1));
  });
});
setInterval(() => send({ type: 'beat', ageMs: host.ageMs }), BEAT_PERIOD_MS);
