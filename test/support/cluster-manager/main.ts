/**
 * The stand-in cluster in a process of its own: `node main.ts [--port N] [--app-port N] [--service NAME=MODEL]…
 * [--folder MODEL]… [--version V] [--provision-ms N]`. Prints one JSON line once it listens: where, and the keys.
 */
import { parseArgs } from 'node:util';
import { ClusterManager, KEYPAIR } from './manager.ts';

const { values } = parseArgs({
  options: {
    port: { type: 'string', default: '0' },
    'app-port': { type: 'string', default: '0' },
    service: { type: 'string', multiple: true, default: [] },
    folder: { type: 'string', multiple: true, default: [] },
    version: { type: 'string', default: 'v8.20240315' },
    'provision-ms': { type: 'string', default: '200' },
  },
});

const manager = await ClusterManager.start({
  port: Number(values.port),
  appPort: Number(values['app-port']),
  version: values.version,
});
manager.services.rules.provisionMs = Number(values['provision-ms']);
for (const model of values.folder)
  manager.services.folders.push({ id: `f-${model}`, name: model, usage_mode: 'model' });
for (const text of values.service) {
  const [name = '', model = name] = text.split('=');
  manager.addService(name, model);
}
process.stdout.write(`${JSON.stringify({ url: manager.url, ...KEYPAIR })}\n`);
process.once('SIGTERM', () => void manager.stop());
