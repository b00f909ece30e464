// The page is built into dist/ and served under /page/ by the service itself, with a policy that allows no inline code.
import react from "@vitejs/plugin-react";
import { defineConfig } from "vitest/config";

export default defineConfig({
  base: "/page/",
  plugins: [react()],
  build: {
    target: "es2022",
    assetsInlineLimit: 0, // the policy forbids data: addresses
    modulePreload: { polyfill: false },
  },
  test: { environment: "node", include: ["src/**/*.test.ts"] },
});
