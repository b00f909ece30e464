import { QueryClient, QueryClientProvider } from "@tanstack/react-query";
import { StrictMode } from "react";
import { createRoot } from "react-dom/client";
import { Failure } from "./api/client";
import { App } from "./app";
import "./style/tokens.css";
import "./style/base.css";
import "./style/shell.css";
import "./style/search.css";
import "./style/result.css";
import "./style/pages.css";

const queries = new QueryClient({
  defaultOptions: {
    queries: {
      // What was refused stays refused; what was not reached, or was busy, may answer a moment later.
      retry: (count, error) => count < 2 && error instanceof Failure && (error.status === 0 || error.status === 503),
      retryDelay: (count) => 500 * 2 ** count,
      staleTime: 10_000,
      refetchOnWindowFocus: false,
      networkMode: "always", // the service may be on this machine, whatever the browser thinks of the network
    },
    mutations: { networkMode: "always" },
  },
});

const root = document.getElementById("root");
if (root) {
  createRoot(root).render(
    <StrictMode>
      <QueryClientProvider client={queries}>
        <App />
      </QueryClientProvider>
    </StrictMode>,
  );
}
