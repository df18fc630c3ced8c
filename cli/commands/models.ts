/** `meshnode models`: everything that can be used by its name, and where it is. */
import { type Command, EXIT } from '../command.ts';
import { formatBytes, formatCount, mergeModels } from '../format.ts';
import { connect } from '../node-api.ts';
import { table } from '../terminal.ts';

export const models: Command = {
  name: 'models',
  positionals: '',
  maxPositionals: 0,
  summary: 'every model of the mesh and where it is',
  settings: ['data-dir', 'api-key-file'],
  extra: [],
  async run(invocation) {
    const { terminal } = invocation;
    const api = await connect(invocation);
    const [node, peers] = await Promise.all([api.node(), api.peers()]);
    const listed = mergeModels(node, peers);
    if (invocation.json) {
      terminal.json({ models: listed });
      return EXIT.ok;
    }
    if (listed.length === 0) {
      terminal.line('No models yet: put a GGUF file into the models directory, or start with --model PATH.');
      return EXIT.ok;
    }
    const rows = listed.flatMap((model) =>
      model.holders.map(({ node: name, local, entry }) => [
        model.id,
        local ? `${name} (here)` : name,
        entry.state,
        formatCount(entry.contextLength),
        entry.quantization ?? '-',
        formatBytes(entry.sizeBytes),
        entry.tokensPerSecond === null ? '-' : entry.tokensPerSecond.toFixed(1),
      ]),
    );
    for (const line of table(['MODEL', 'ON', 'STATE', 'CONTEXT', 'QUANT', 'SIZE', 'TOK/S'], rows)) terminal.line(line);
    return EXIT.ok;
  },
};
