/** As far as the swarm moves on from a taken port. */
const MAX_PORT_SHIFT = 20;

/** The listen addresses with the port of the last run, when that was one of the next after a taken one. */
export function keptListen(listen: readonly string[], kept: number | null): readonly string[] {
  return listen.map((address) => {
    const wanted = Number(/\/tcp\/(\d+)$/.exec(address)?.[1] ?? 0);
    const wasShifted = kept !== null && wanted !== 0 && kept > wanted && kept <= wanted + MAX_PORT_SHIFT;
    return wasShifted ? address.replace(/\d+$/, String(kept)) : address;
  });
}
