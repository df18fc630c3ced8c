/** Start in order, stop in reverse, one deadline for the whole stop. */

/** Something with a life. `stop` is idempotent, safe before `start`, and settles by the time its signal aborts. */
export interface Startable {
  start(): Promise<void> | void;
  stop(signal: AbortSignal): Promise<void> | void;
}

/**
 * Starts each in turn. When one fails, those already started are stopped in reverse.
 *
 * @throws the first start error.
 */
export async function startAll(parts: readonly Startable[], stopSignal: () => AbortSignal): Promise<void> {
  const started: Startable[] = [];
  for (const part of parts) {
    try {
      await part.start();
      started.push(part);
    } catch (error) {
      await stopAll([...started, part], stopSignal());
      throw error;
    }
  }
}

/** Stops each in reverse order, one at a time; a failing stop does not keep the others from stopping. */
export async function stopAll(parts: readonly Startable[], signal: AbortSignal): Promise<unknown[]> {
  const failures: unknown[] = [];
  for (const part of parts.toReversed()) {
    try {
      await part.stop(signal);
    } catch (error) {
      failures.push(error);
    }
  }
  return failures;
}
