/** Whom this process connects to over HTTP: a client library that phones home would show. */
import diagnostics from 'node:diagnostics_channel';

/** Starts to watch; `hosts` are the names or addresses of all HTTP connections and requests since. */
export function watchOutboundHosts(): { readonly hosts: ReadonlySet<string>; stop(): void } {
  const hosts = new Set<string>();
  const connecting = (message: unknown): void => {
    const { connectParams } = message as { connectParams: { hostname: string } };
    hosts.add(connectParams.hostname);
  };
  const requesting = (message: unknown): void => {
    const { request } = message as { request: { host: string } };
    hosts.add(request.host);
  };
  diagnostics.subscribe('undici:client:beforeConnect', connecting);
  diagnostics.subscribe('http.client.request.start', requesting);
  return {
    hosts,
    stop: () => {
      diagnostics.unsubscribe('undici:client:beforeConnect', connecting);
      diagnostics.unsubscribe('http.client.request.start', requesting);
    },
  };
}
