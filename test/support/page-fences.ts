/** The fenced blocks of a page of the documentation. */

/** A fenced block: what stands behind its fence, and its lines. */
export interface Fence {
  readonly info: string;
  readonly body: string;
}

export function fencesOf(markdown: string): readonly Fence[] {
  return [...markdown.matchAll(/^```(.*)\n([\s\S]*?)^```$/gm)].map(([, info = '', body = '']) => ({ info, body }));
}

/** Whether `output` has the line that a page shows; `…` there stands for anything within a line. */
export function shows(output: string, line: string): boolean {
  const pieces = line.trimEnd().split('…');
  return output.split('\n').some((printed) => {
    let at = 0;
    return pieces.every((piece) => {
      const found = printed.indexOf(piece, at);
      at = found + piece.length;
      return found !== -1;
    });
  });
}
