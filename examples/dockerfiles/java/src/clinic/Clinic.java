package clinic;

import com.sun.net.httpserver.HttpExchange;
import com.sun.net.httpserver.HttpServer;
import java.io.IOException;
import java.net.InetAddress;
import java.net.InetSocketAddress;
import java.nio.charset.StandardCharsets;
import java.util.List;

/** Says which pets are in. */
public final class Clinic {
    private static final List<String> PETS = List.of("Leo", "Basil", "Rosy");

    private Clinic() {}

    public static void main(String[] args) throws IOException {
        HttpServer server = HttpServer.create(new InetSocketAddress(InetAddress.getLoopbackAddress(), 8080), 0);
        server.createContext("/pets", Clinic::pets);
        server.start();
        System.out.println("Started Clinic on Java " + Runtime.version().feature());
    }

    private static void pets(HttpExchange exchange) throws IOException {
        byte[] body = String.join(",", PETS).getBytes(StandardCharsets.UTF_8);
        exchange.sendResponseHeaders(200, body.length);
        exchange.getResponseBody().write(body);
        exchange.close();
    }
}
