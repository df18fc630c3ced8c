/** The bundled model, so that the first run needs no download. How it was made: training/README.md. */
import { fileURLToPath } from 'node:url';

/** Absolute path of the bundled GGUF, in the checkout and in the published package alike. */
export function demoModelPath(): string {
  return fileURLToPath(new URL('./meshnode-demo.gguf', import.meta.url));
}
