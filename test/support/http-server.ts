/** What the stand-ins that speak HTTP do alike. */
import { once } from 'node:events';
import type { Server } from 'node:http';

/** Breaks all connections and frees the port; nothing when the server is closed already. */
export async function stopServer(server: Server): Promise<void> {
  if (!server.listening) return;
  server.close();
  server.closeAllConnections();
  await once(server, 'close');
}
