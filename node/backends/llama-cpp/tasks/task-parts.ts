/** Cuts a large task into ones that make small messages and leave room for others in between. */
import type { EngineTask } from './engine-task.ts';

/** A part has at most so many inputs: their vectors are one message from the child. */
export const PART_INPUTS = 64;
/** And about so many characters or tokens: they are one message to the child. */
export const PART_SIZE = 256 * 1024;

/** The parts in order; a task that is small, or cannot be cut, alone. */
export function taskParts(task: EngineTask): EngineTask[] {
  if (task.type === 'embed') {
    return runs(task.inputs).map(({ items, first }) => ({ ...task, inputs: items, firstInput: first }));
  }
  if (task.type === 'rerank') {
    return runs(task.documents).map(({ items, first }) => ({ ...task, documents: items, firstDocument: first }));
  }
  return [task];
}

interface Run<T> {
  readonly items: T[];
  /** Number of the first of them. */
  readonly first: number;
}

function runs<T extends { readonly length: number }>(all: readonly T[]): Run<T>[] {
  const cut: Run<T>[] = [];
  let size = 0;
  all.forEach((item, index) => {
    const last = cut.at(-1);
    if (last !== undefined && last.items.length < PART_INPUTS && size + item.length <= PART_SIZE) {
      last.items.push(item);
      size += item.length;
    } else {
      cut.push({ items: [item], first: index });
      size = item.length;
    }
  });
  return cut;
}
