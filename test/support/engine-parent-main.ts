/** A process that owns an engine, for tests that kill it. Prints the child's process id when it is where argv says, then waits. */

import { demoModelPath } from '../../node/backends/llama-cpp/demo/demo-model.ts';
import { LlamaEngine } from '../../node/backends/llama-cpp/engine.ts';
import { systemClock } from '../../node/common/clock.ts';
import { silentLogger } from '../../node/common/logger.ts';
import { chatRequest, DEMO, ModelList, modelFile, neverAborted } from './demo-engine.ts';

const [, , when] = process.argv;
const engine = new LlamaEngine(
  {
    fingerprint: '12D3KooWParent',
    models: new ModelList([modelFile(DEMO, demoModelPath())]),
    clock: systemClock,
    logger: silentLogger,
  },
  { gpu: 'off', contextTokens: null, parallel: 4 },
);
engine.start();
const say = (): void => console.log(engine.children().get(DEMO));
if (when === 'loading') engine.onCatalogChange(say);
for (;;) {
  const request = chatRequest('Tell me a story about an owl named Hugo.');
  for await (const event of engine.infer(request, { signal: neverAborted })) {
    if (when === 'generating' && event.type === 'chunk') say();
  }
}
